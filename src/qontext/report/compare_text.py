"""A comparison as text."""

from collections.abc import Mapping
from typing import Any


def render(data: Mapping[str, Any]) -> str:
    """The layers with their errors, the first step beyond the tolerance, and what was not compared."""
    rows = data["rows"]
    lines = [
        f"{data['engine']} in {data['precision']} on {data['device']}, against the references of {data['model']}",
        f"inputs {data['inputs']}; {data['compared']} of {len(rows)} steps compared",
        "",
        f"  {'step':>4}  {'operator':16}  {'error so far':>12}  {'its own':>9}  {'largest':>9}",
    ]
    layer = None
    for row in rows:
        if row["layer"] != layer:
            layer = row["layer"]
            lines.append(f" {layer}")
        if row["error"] is None:
            continue
        marks = "  <- first beyond the tolerance" if row["index"] == data["first_beyond"] else ""
        marks += "  <- wrong by itself" if row["index"] in data["wrong_by_itself"] else ""
        own = "" if row["own"] is None else f"{row['own']:.2e}"
        lines.append(
            f"  {row['index']:4d}  {row['op']:16}  {row['error']:12.2e}  {own:>9}  {row['largest']:9.2e}"
            f"  {row['origin']}{marks}"
        )
    lines.append("")
    lines += [f"output {o['name']}: {o['error']:.2e}, allowed {data['tolerance']:.2e}" for o in data["outputs"]]
    bisection = data["bisection"]
    if data["ok"]:
        lines.append("all outputs are within the tolerance")
    elif bisection["step"] is None:
        lines.append(f"bisection: {bisection['why']}")
    else:
        row = rows[bisection["step"]]
        lines.append(
            f"bisection ({len(bisection['runs'])} runs): the outputs come right once step {row['index']} "
            f"({row['op']}, {row['kernel']}, {row['origin']}) and all before it give what the reference gives"
        )
    left = [r for r in rows if r["error"] is None]
    if left:
        lines += ["not compared:", *(f"  {r['index']:4d}  {r['op']}: {r['not_compared']}" for r in left)]
    return "\n".join(lines)
