"""The catalogue page `docs/operators.md`, written from the declarations: `python -m qontext.ops.docs`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ..axes import LEGEND
from .catalogue import OPS
from .declare import REQUIRED, Attribute, Op, Param

PAGE = Path(__file__).resolve().parents[3] / "docs" / "operators.md"
_HEAD = """# Operators

This page is written from the declarations in `src/qontext/ops` by `python -m qontext.ops.docs`; a test keeps it true.

Every operator is a Python object, `qontext.ops.catalogue.BY_NAME[name]`. Called on torch tensors it computes at once;
called on values of a `Network` it adds a node, and so does the network's method of the name given below. Inputs marked
`?` may be absent. Outputs marked `?` are made only when asked for with `outputs=(...)`. `...` stands for any number of
axes. A letter as a type is any one of the types said below it, the same for all operands that carry the letter.
"""


def page() -> str:
    """The whole page."""
    contents = "\n".join(f"- [{op.name}](#{op.name.lower()}): {_first_sentence(op.doc)}" for op in OPS)
    legend = "\n".join(f"| `{letter}` | {meaning} |" for letter, meaning in LEGEND.items())
    sections = "\n".join(section(op) for op in OPS)
    return f"{_HEAD}\n{contents}\n\n## Axes\n\n| Axis | Meaning |\n|---|---|\n{legend}\n\n{sections}"


def section(op: Op) -> str:
    """The part of the page about one operator."""
    parts = [
        f"## {op.name}",
        op.doc,
        f"Method `{op.method}`, version {op.version}. Source: <{op.source}>",
        _table(("Input", "Axes", "Type", "Meaning"), [_param_row(op, p) for p in op.inputs]),
        _table(("Output", "Axes", "Type", "Meaning"), [_param_row(op, p) for p in op.outputs]),
    ]
    used = {p.dtype for p in (*op.inputs, *op.outputs)}
    variables = [f"`{name}` is {_either(types)}" for name, types in op.types.items() if name in used]
    if variables:
        parts.append("Types: " + "; ".join(variables) + ".")
    if op.attributes:
        rows = [(f"`{a.name}`", a.kind.__name__, _default(a), _allowed(a), a.doc) for a in op.attributes]
        parts.append(_table(("Attribute", "Type", "Default", "Allowed", "Meaning"), rows))
    kernels = ", ".join(f"`{k.name}` ({k.device})" for k in op.kernels)
    parts.append(f"Kernels: {kernels}, `reference.{op.method}`.")
    if op.updates:
        parts.append("Written in place: " + ", ".join(f"`{o}` is `{i}`" for o, i in op.updates.items()) + ".")
    if op.token_wise:
        parts.append("Token-wise: every row is computed from the same row of the inputs alone.")
    if op.body is None:
        parts.append("It has no body of standard ONNX operators.")
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _either(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]


def _param_row(op: Op, param: Param) -> tuple[str, ...]:
    axes = " or ".join(f"`[{form.strip()}]`" for form in param.axes.split("|"))
    dtypes = f"`{param.dtype}`" if param.dtype in op.types else ", ".join(param.dtype.split("|"))
    where = "read on the host" if param.host else ""
    return f"`{param.name}`{'?' if param.optional else ''}", axes, dtypes, "; ".join(x for x in (param.doc, where) if x)


def _default(attribute: Attribute) -> str:
    return "required" if attribute.default is REQUIRED else f"`{attribute.default!r}`"


def _allowed(attribute: Attribute) -> str:
    return ", ".join(f"`{choice}`" for choice in attribute.choices)


def _first_sentence(text: str) -> str:
    return text.split(". ")[0].rstrip(".")


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
