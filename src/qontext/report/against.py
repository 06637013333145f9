"""Two ways of running a model side by side: kernels of each, matched by layer, with counts and times.

One side is an engine. The other is a second engine, or the torch module itself, eager or through torch.compile.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..engine import Engine
from ..errors import ArgumentError
from . import numbers
from .explain import explain
from .layers import layer_key
from .torch_trace import Kernel, trace

_ATTENTION = ("scaled_dot_product", "softmax", "attention", "QKVToContext", "Attention", "flash")
TORCH = {"torch": False, "torch.compile": True}


@dataclass(frozen=True)
class Against:
    """The result: `data` is JSON-able, `str()` is text."""

    data: dict[str, Any]

    def __str__(self) -> str:
        return render(self.data)


def against(
    engine: Engine,
    other: Engine | torch.nn.Module,
    inputs: Mapping[str, torch.Tensor] | None = None,
    batch: int = 8,
    length: int = 128,
    compiled: bool = False,
) -> Against:
    """Compares the kernels of an engine with those of another engine or of a module.

    Args:
        inputs: of both, by name; ids and a mask of ones of the given size when left out.
        batch, length: size of the runs.
        compiled: run the module through torch.compile.
    """
    mine = _engine_side(engine, batch, length, inputs)
    if isinstance(other, Engine):
        theirs = _engine_side(other, batch, length)
    else:
        theirs = _module_side(other, inputs or _ids(engine, batch, length), compiled)
    return Against({"sides": [_totals(mine), _totals(theirs)], "rows": _matched(mine, theirs)})


def torch_model(folder: str) -> torch.nn.Module:
    """The module of a Hugging Face folder, by the class that its configuration names.

    Raises ArgumentError when transformers is missing or the folder names no class that it has.
    """
    try:
        import transformers
    except ImportError as error:
        raise ArgumentError("--against torch needs the package transformers: pip install transformers") from error
    try:
        names = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"--against torch needs a Hugging Face folder with config.json, {Path(folder).name} has none: {error}"
        ) from error
    found = getattr(transformers, names[0], None) if names else None
    if found is None:
        raise ArgumentError(f"--against torch: transformers has no class {names}; config.json names the architecture")
    model: torch.nn.Module = found.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def _ids(engine: Engine, batch: int, length: int) -> dict[str, torch.Tensor]:
    length = min(length, engine.max_length or length)
    ids = torch.ones(batch, length, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _engine_side(
    engine: Engine, batch: int, length: int, inputs: Mapping[str, torch.Tensor] | None = None
) -> dict[str, Any]:
    data = explain(engine, batch, length, inputs=inputs).data
    kernels = [Kernel(f"{s['op']} ({s['kernel']})", s["origin"], s["us"]) for s in data["steps"]]
    places = [_place(data["layers"], s["layer"]) for s in data["steps"]]
    run_us = data["measured"]["run_us"]
    return {"name": f"qontext {engine.name} {engine.precision}", "run_us": run_us, "kernels": kernels, "places": places}


def _place(layers: Sequence[Mapping[str, Any]], index: int) -> int | str:
    """The how-manieth numbered layer it is, or "before" or "after"."""
    numbered = [i for i, layer in enumerate(layers) if layer["path"]]
    if index in numbered:
        return numbered.index(index)
    return "before" if not numbered or index < numbered[0] else "after"


def _module_side(module: torch.nn.Module, inputs: Mapping[str, torch.Tensor], compiled: bool) -> dict[str, Any]:
    seen = trace(module, inputs, compiled)
    kernels = seen.kernels
    keys = [layer_key(k.module) for k in kernels]
    if any(keys):
        order = {key: i for i, key in enumerate(dict.fromkeys(k for k in keys if k is not None))}
        last = max(i for i, k in enumerate(keys) if k is not None)
        places: list[int | str] = [
            order[k] if k is not None else "after" if i > last else "before" for i, k in enumerate(keys)
        ]
    else:
        places = _cut(kernels)
    name = "torch.compile" if compiled else "PyTorch eager"
    return {
        "name": f"{name}, {type(module).__name__}",
        "run_us": seen.run_us,
        "kernels": kernels,
        "places": places,
    }


def _cut(kernels: Sequence[Kernel]) -> list[int | str]:
    """Kernels that know no modules are cut at their attentions, if there is more than one."""
    at = [i for i, k in enumerate(kernels) if any(word in k.name for word in _ATTENTION)]
    if len(at) < 2:
        return ["before"] * len(kernels)
    each = at[1] - at[0]
    lead = sum(1 for i in range(at[0]) if at[0] - i <= each // 2)
    first = at[0] - lead
    return [
        "before" if i < first else "after" if (i - first) // each >= len(at) else (i - first) // each
        for i in range(len(kernels))
    ]


def _totals(side: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": side["name"],
        "kernels": len(side["kernels"]),
        "kernels_us": sum(k.us for k in side["kernels"]),
        "run_us": side["run_us"],
    }


def _matched(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[dict[str, Any]]:
    places = {p for side in (mine, theirs) for p in side["places"]}
    numbered = sorted(p for p in places if isinstance(p, int))
    order: list[int | str] = [
        *(p for p in ("before",) if p in places),
        *numbered,
        *(p for p in ("after",) if p in places),
    ]
    whole = not numbered
    return [
        {
            "layer": f"layer {p}" if isinstance(p, int) else "the whole model" if whole else f"{p} the layers",
            "sides": [_at(side, p) for side in (mine, theirs)],
        }
        for p in order
    ]


def _at(side: Mapping[str, Any], place: int | str) -> dict[str, Any]:
    kernels = [k for k, p in zip(side["kernels"], side["places"], strict=True) if p == place]
    return {
        "count": len(kernels),
        "us": sum(k.us for k in kernels),
        "kernels": [{"name": k.name, "module": k.module, "us": k.us} for k in kernels],
    }


def render(data: Mapping[str, Any]) -> str:
    """The comparison as text: a line a layer, and the kernels of the first numbered layer of each side."""
    a, b = data["sides"]
    lines = [
        f"{b['name']}: {b['kernels']} kernels, {numbers.span(b['run_us'])} a run",
        f"{a['name']}: {a['kernels']} kernels, {numbers.span(a['run_us'])} a run, "
        f"{b['run_us'] / a['run_us']:.2f} times as fast",
        "",
        f"  {'':18}  {b['name'][:24]:>24}  {a['name'][:24]:>24}",
    ]
    for row in data["rows"]:
        x, y = row["sides"]
        left, right = (f"{s['count']} kernels {numbers.span(s['us'])}" for s in (y, x))
        lines.append(f"  {row['layer']:18}  {left:>24}  {right:>24}")
    shown = next((r for r in data["rows"] if r["layer"] == "layer 0"), data["rows"][0] if data["rows"] else None)
    if shown is not None:
        lines += ["", f"Kernels of {shown['layer']}"]
        for side, part in ((b, shown["sides"][1]), (a, shown["sides"][0])):
            lines.append(f"  {side['name']}")
            lines += [f"    {numbers.span(k['us']):>10}  {k['name']}  {k['module']}" for k in part["kernels"]]
    return "\n".join(lines)
