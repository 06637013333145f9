"""Transposes of the two leading axes around operators that can do without."""

from dataclasses import dataclass

import onnx_ir as ir

from ..graph.attributes import attributes_of
from .rewriter import Rewriter
from .rule import Conditions, Rule

_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Relu", "Tanh", "Sigmoid"})
_ATTENTION = {
    "S B (three N D)": "B S (three N D)",
    "S B (N D)": "B S (N D)",
    "B S (three N D)": "S B (three N D)",
    "B S (N D)": "S B (N D)",
}
_OPERANDS = {"QKVToContext": (0,), "Attention": (0, 1, 2)}
_MOST = 64


@dataclass(frozen=True)
class Found:
    """The last operator computes `result`; `inside` run with the axes swapped, reading `sources` in place of values."""

    result: ir.Value
    inside: tuple[ir.Node, ...]
    sources: dict[ir.Value, ir.Value]


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.candidate(_swaps(rewriter, node), "it does not swap the two leading axes")
    result = node.inputs[0]
    assert result is not None
    seen.candidate(rewriter.producer(result) is not None, "it transposes an input of the graph")
    inside: dict[ir.Node, None] = {}
    sources: dict[ir.Value, ir.Value] = {}
    todo = [result]
    while todo:
        value = todo.pop()
        before = rewriter.producer(value)
        if before is not None and _swaps(rewriter, before) and before.inputs[0] is not None:
            sources[value] = before.inputs[0]
            continue
        operands = None if before is None else _operands(rewriter, before)
        seen.depth = int(bool(inside) and bool(sources))
        who = "an input of the graph" if before is None else f"{before.op_type} {before.name!r}"
        seen.holds(operands is not None, f"{who} between two Transposes needs its leading axes as they are", before)
        assert before is not None
        assert operands is not None
        inside[before] = None
        seen.holds(len(inside) <= _MOST, f"more than {_MOST} operators stand between the Transposes")
        todo += [v for v in operands if rewriter.producer(v) not in inside]
    seen.candidate(inside and sources, "no other Transpose stands before it")
    for inner in inside:
        readers = (node,) if inner.outputs[0] is result else ()
        others = any(rewriter.read_elsewhere(v, (*inside, *readers)) for v in inner.outputs)
        seen.holds(not others, "something between the Transposes is read elsewhere too", inner)
    seen.candidate(rewriter.can_stand_in(result, node.outputs[0]), "it gives an output of the graph its name")
    order = tuple(n for n in rewriter.graph if n in inside)
    return Found(result, order, sources)


def _swaps(rewriter: Rewriter, node: ir.Node) -> bool:
    """A Transpose of the first two axes alone."""
    if node.domain != "" or node.op_type != "Transpose":
        return False
    order = rewriter.attributes(node).get("perm") or []
    return len(order) >= 3 and order == [1, 0, *range(2, len(order))]


def _operands(rewriter: Rewriter, node: ir.Node) -> list[ir.Value] | None:
    """The inputs of a node that would have to be swapped; None when it cannot run with its leading axes swapped."""
    declared = rewriter.inference.ops.get(node.op_type)
    given = list(node.inputs)
    if declared is not None and declared.domain == node.domain:
        if node.op_type in _OPERANDS:
            if rewriter.attributes(node).get("layout") not in _ATTENTION or any(v.name for v in node.outputs[1:]):
                return None
            return [v for i, v in enumerate(given) if i in _OPERANDS[node.op_type] and v is not None]
        if not declared.token_wise:
            return None
        rows = [v for p, v in zip(declared.inputs, given, strict=False) if p.has_rows and v is not None]
        return rows if all(len(rewriter.shape(v) or ()) == 3 for v in rows) else None
    if node.domain != "" or node.op_type not in _ELEMENTWISE:
        return None
    whole, rows = rewriter.shape(node.outputs[0]), list[ir.Value]()
    for value in given:
        shape = None if value is None else rewriter.shape(value)
        if value is None or shape is None or whole is None:
            return None
        if shape == whole:
            rows.append(value)
        elif len(shape) > 1:  # a row of features is the same for all tokens
            return None
    return rows


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    for inner in found.inside:
        layout = rewriter.attributes(inner).get("layout")
        if layout in _ATTENTION:
            inner.attributes["layout"] = attributes_of({"layout": _ATTENTION[layout]})[0]
        changed = {i: found.sources[v] for i, v in enumerate(inner.inputs) if v is not None and v in found.sources}
        rewriter.set_inputs(inner, changed)
    rewriter.remove(node, found.result, f"{len(found.inside)} operators before it run with the leading axes swapped")


RULE = Rule(
    name="leading_axes",
    doc="A Transpose of the two leading axes, token-wise operators and attentions after it, and the Transpose back: "
    "the operators run with the axes as they were (an attention in its other layout), and both Transposes go.",
    anchors=frozenset({"Transpose"}),
    check=check,
    rewrite=rewrite,
    why="after qkv, when the views between the Transposes are gone",
)
