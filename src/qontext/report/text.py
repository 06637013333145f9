"""An explanation as text for a terminal or a bug report."""

from collections.abc import Mapping, Sequence
from typing import Any

from .caches import render_caches


def render(data: Mapping[str, Any]) -> str:
    """The whole report."""
    parts = [_head(data), _operators(data), _fusions(data["fusions"]), _refusals(data["refusals"])]
    parts += [_packing(data["packing"]), _kept(data["steps"]), quantised_text(data["quantised"])]
    parts += [render_caches(data["caches"]), _steps(data)]
    return "\n\n".join(p for p in parts if p)


def _head(data: Mapping[str, Any]) -> str:
    built = f"built in {data['build_seconds']:.2f} s" if data["build_seconds"] else "loaded from a file"
    lines = [f"{data['engine']}: {data['precision']} on {data['device']}, {built}"]
    graphs = data["graphs"]
    if graphs["steps"]:
        held = "; ".join(g["sizes"] for g in graphs["captured"]) or "captured when a batch needs them"
        lines.append(f"CUDA graphs of {graphs['steps']} steps: {held}")
    elif graphs["reason"]:
        lines.append(f"No CUDA graphs: {graphs['reason']}")
    return "\n".join(lines)


def _operators(data: Mapping[str, Any]) -> str:
    before = ", ".join(f"{n} {op}" for op, n in data["source_operators"].items())
    after = ", ".join(f"{n} {op}" for op, n in data["step_operators"].items())
    return (
        f"Operators\n  before: {data['source_nodes']} ({before})\n"
        f"  after:  {sum(data['step_operators'].values())} ({after})\n"
        f"  {data['folded']} folded into constants, {data['removed']} removed"
    )


def _fusions(fusions: Sequence[Mapping[str, Any]]) -> str:
    if not fusions:
        return "Fused: nothing"
    lines = ["Fused"]
    groups: dict[tuple[str, str, tuple[str, ...], str], list[Mapping[str, Any]]] = {}
    for fusion in fusions:
        groups.setdefault((fusion["rule"], fusion["after"], tuple(fusion["before"]), fusion["note"]), []).append(fusion)
    for (rule, after, before, note), group in groups.items():
        times = f" x {len(group)}" if len(group) > 1 else ""
        lines.append(f"  {rule}: {' + '.join(before)} -> {after}{f' ({note})' if note else ''}{times}")
        lines.append(f"      at {group[0]['origin']}{' ...' if len(group) > 1 else ''}")
    return "\n".join(lines)


def _refusals(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "Not fused: no candidate was refused"
    lines = ["Not fused, and why"]
    for row in rows:
        times = f" x {row['count']}" if row["count"] > 1 else ""
        lines.append(f"  {row['rule']}: {row['reason']}{times}")
        lines.append(f"      at {', '.join(p for p in row['places'][:3])}{' ...' if row['count'] > 3 else ''}")
    return "\n".join(lines)


def _packing(packing: Mapping[str, Any]) -> str:
    if packing["reason"]:
        return f"Padding stays: {packing['reason']}"
    lines = [f"Padding removed: {packing['packed']} nodes run on packed tokens"]
    lines += [f"  padded: {n['op']} {n['node']}: {n['reason']}" for n in packing["left_padded"]]
    return "\n".join(lines)


def _kept(steps: Sequence[Mapping[str, Any]]) -> str:
    kept = [s for s in steps if s["kept"]]
    if not kept:
        return ""
    return "\n".join(["Kept in float32", *(f"  {s['op']} {s['origin'] or s['name']}: {s['kept']}" for s in kept)])


def quantised_text(found: Mapping[str, Any]) -> str:
    """The linear layers of an engine of eight bits, one line each; empty for other engines."""
    layers = found["layers"]
    if not layers:
        return ""
    share = (
        f"{found['precision']}: {found['share_of_operations']:.1%} of the operations of linear layers, "
        f"the rest in {found['rest']}"
    )
    errors = ", ".join(f"{name} {error:.3g}" for name, error in found["errors"].items())
    lines = [share + (f"; relative error of the results on the samples: {errors}" if errors else "")]
    names = [(n["origin"] or n["name"]) + (" attention" if n["what"] == "attention" else "") for n in layers]
    width = max(len(name) for name in names)
    for name, layer in zip(names, layers, strict=True):
        error = "" if layer["error"] is None else f"  error {layer['error']:.2e}"
        columns = f"  largest column {layer['outliers']:.1f} x the median" if layer["outliers"] else ""
        smooth = ", smoothed" if layer["smoothed"] else ""
        rounding = f", weight rounded {layer['rounding']}" if layer["rounding"] else ""
        if layer["nearest"] is not None:
            rounding += f" (its error {layer['rounded']:.2e}, to the nearest {layer['nearest']:.2e})"
        how = f"kept: {layer['kept']}" if layer["kept"] else f"scale {layer['scale']}{smooth}{rounding}"
        lines.append(f"  {name:{width}}  {layer['weights']:5}  {how}{error}{columns}")
    return "\n".join(lines)


def _steps(data: Mapping[str, Any]) -> str:
    steps = data["steps"]
    width = max((len(s["op"]) for s in steps), default=0)
    kernels = max((len(s["kernel"]) for s in steps), default=0)
    measured = data.get("measured")
    if measured is None:
        rows = [f"  {i:3d}  {s['op']:{width}}  {s['kernel']:{kernels}}  {s['origin']}" for i, s in enumerate(steps)]
        return "\n".join(["Steps", *rows])
    sizes = ", ".join(f"{k}={v}" for k, v in measured["sizes"].items())
    rates = ", ".join(f"{k} {v / 1e9:.0f} Gflop/s" for k, v in measured["ceilings"]["flops_per_s"].items())
    lines = [
        f"Steps at {sizes}: {measured['run_us'] / 1e3:.2f} ms a run "
        f"(ceilings: copy {measured['ceilings']['copy_bytes_per_s'] / 1e9:.0f} GB/s, {rates}; "
        f"arena {measured['arena_bytes'] / 1e6:.1f} MB)",
        f"       {'operator':{width}}  {'kernel':{kernels}}        us   share      MB   Mflop  shape",
    ]
    for i, s in enumerate(steps):
        lines.append(
            f"  {i:3d}  {s['op']:{width}}  {s['kernel']:{kernels}}  {s['us']:8.1f}  {s['share_of_ceiling']:5.0%}  "
            f"{s['bytes'] / 1e6:6.2f}  {s['flops'] / 1e6:6.0f}  {' '.join(s['shapes'])}  {s['origin']}"
        )
    total = measured["steps_us"]
    best = sum(s["best_us"] for s in steps)
    lines.append(f"  all steps {total / 1e3:.2f} ms, {best / total:.0%} of the ceiling")
    slow: dict[tuple[str, str, str], list[str]] = {}
    for s in steps:
        for kernel, reason in s["refused"]:
            slow.setdefault((s["op"], kernel, reason), []).append(s["name"])
    if slow:
        lines.append("Kernels that could not run")
        lines += [f"  {op}: {kernel}: {reason}  (x {len(names)})" for (op, kernel, reason), names in slow.items()]
    return "\n".join(lines)
