"""Pages of operators, `docs/operators/*.md`: the ONNX sub-graph, every input, and how the kernels work.

The first two are written from the declarations, the third from what the kernels say of themselves and from the notes
in `docs/kernel-notes`. `python -m qontext.report.operator_pages` writes them; a test keeps them true.
"""

import inspect
import sys
from pathlib import Path

import onnx_ir as ir
import torch

from ..graph.dims import text
from ..ops.body import function_for
from ..ops.call import Call
from ..ops.catalogue import OPS
from ..ops.declare import Case, Op, operand_of
from ..ops.docs import section
from .picture import Shown, svg

DOCS = Path(__file__).resolve().parents[3] / "docs"
FOLDER = DOCS / "operators"


def pages() -> dict[str, str]:
    """All files by their name in `docs/operators`."""
    files: dict[str, str] = {}
    for op in OPS:
        files[f"{op.name}.md"] = page(op, files)
    return files


def page(op: Op, files: dict[str, str]) -> str:
    """The page of one operator; its picture goes into `files`."""
    parts = [
        f"# {op.name}",
        "This page is written from the declaration by `python -m qontext.report.operator_pages`; a test keeps it true. "
        "All operators are in [the catalogue](../operators.md).",
        _doc(op),
        "## ONNX sub-graph",
        _sub_graph(op, files),
        "## Every input",
        _inputs(op),
        "## Notes on its kernels",
        _kernels(op),
    ]
    return "\n\n".join(parts) + "\n"


def _doc(op: Op) -> str:
    return inspect.cleandoc(op.doc)


def _inputs(op: Op) -> str:
    """The tables of the catalogue without their heading and first sentence."""
    whole = section(op).strip().split("\n\n")
    return "\n\n".join(p for p in whole if not p.startswith("## ") and p != op.doc)


def _sub_graph(op: Op, files: dict[str, str]) -> str:
    """The function body of the first case that has one, as a picture and as text."""
    for case in op.cases():
        call = _call(op, case)
        function = function_for(op, call) if call is not None else None
        if function is None or call is None:
            continue
        name = f"{op.name}.svg"
        files[name] = svg(_boxes(function), f"{op.name}, case {case.name}")
        given = ", ".join(
            f"{p.name} {o.dtype}{text(o.shape)}" for p, o in zip(op.inputs, call.inputs, strict=False) if o is not None
        )
        shown = ", ".join(f"{k}={v!r}" for k, v in case.attributes.items())
        return "\n\n".join(
            [
                "What it means in standard operators. A saved ONNX model carries this as a function body, one for each "
                f"variant; here the case `{case.name}`{f' ({shown})' if shown else ''} with {given}.",
                f"![{op.name} in standard operators]({name})",
                f"{len(function)} standard operators: {_counted(function)}.",
            ]
        )
    return (
        "It has none: standard operators cannot say it, or cannot say it for sizes that only a run knows. What it "
        "computes is said by its `reference.py`."
    )


def _call(op: Op, case: Case) -> Call | None:
    made = case.make(torch.Generator().manual_seed(0), torch.float32)
    inputs = tuple(None if t is None else operand_of(t) for t in made)
    inputs += (None,) * (len(op.inputs) - len(inputs))
    attributes = op.complete_attributes(case.attributes)
    outputs = op.infer_outputs(inputs, attributes)
    wanted = case.outputs or tuple(p.name for p in op.outputs if not p.optional)
    kept = tuple(o if p.name in wanted else None for p, o in zip(op.outputs, outputs, strict=True))
    return Call(op.name, inputs, kept, attributes)


def _boxes(function: ir.Function) -> list[Shown]:
    index: dict[ir.Value, int] = {}
    boxes: list[Shown] = []
    for value in function.inputs:
        if value.uses():
            index[value] = len(boxes)
            boxes.append(Shown(str(value.name), "input", "", (), "input"))
    for node in function:
        if node.op_type == "Constant":
            continue
        reads = tuple(dict.fromkeys(index[v] for v in node.inputs if v in index))
        boxes.append(Shown(node.op_type, str(node.outputs[0].name or ""), "", reads))
        index.update(dict.fromkeys(node.outputs, len(boxes) - 1))
    for value in function.outputs:
        boxes.append(Shown(str(value.name), "output", "", (index[value],) if value in index else (), "output"))
    return boxes


def _counted(function: ir.Function) -> str:
    counts: dict[str, int] = {}
    for node in function:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return ", ".join(
        f"{n} {kind}" if n > 1 else kind for kind, n in sorted(counts.items(), key=lambda c: (-c[1], c[0]))
    )


def _kernels(op: Op) -> str:
    """What each kernel says of itself, and the notes that were written by hand."""
    rows = ["| Kernel | Runs on | Writes into the arena | What it is |", "|---|---|---|---|"]
    groups: dict[tuple[str, str, str], list[str]] = {}
    for kernel in op.kernels:
        module = inspect.getmodule(kernel.bind)
        said = (inspect.getdoc(module) if module is not None else "") or ""
        where = module.__name__.removeprefix("qontext.") if module is not None else ""
        first = " ".join(said.split("\n\n")[0].split())
        key = kernel.device, "yes" if kernel.writes_out else "no", f"{first} (`{where}`)"
        groups.setdefault(key, []).append(f"`{kernel.name}`")
    rows += [f"| {', '.join(names)} | {device} | {out} | {what} |" for (device, out, what), names in groups.items()]
    rows.append(f"| `reference.{op.method}` | cpu, cuda | no | The definition, in torch. |")
    notes = DOCS / "kernel-notes" / f"{op.name}.md"
    parts = ["\n".join(rows)]
    if op.cost is not None:
        parts.append(_cost(op))
    if notes.exists():
        parts.append(notes.read_text(encoding="utf-8").strip())
    return "\n\n".join(p for p in parts if p)


def _cost(op: Op) -> str:
    """The least work of a bench case, from the declaration."""
    assert op.cost is not None
    for case in op.cases():
        call = _call(op, case) if case.bench else None
        if call is None:
            continue
        cost = op.cost(call)
        ratio = f", {cost.flops / cost.bytes:.1f} flops a byte" if cost.flops else ""
        shapes = " ".join(f"{o.dtype}{text(o.shape)}" for o in call.inputs if o is not None)
        return (
            f"The least it can do, for the case `{case.name}` ({shapes}): {cost.bytes:,.0f} bytes moved, "
            f"{cost.flops:,.0f} flops{ratio}."
        )
    return ""


def main() -> None:
    """Writes the pages."""
    FOLDER.mkdir(exist_ok=True)
    files = pages()
    for name, content in files.items():
        (FOLDER / name).write_text(content, encoding="utf-8")
    print(f"wrote {len(files)} files into {FOLDER}", file=sys.stderr)


if __name__ == "__main__":
    main()
