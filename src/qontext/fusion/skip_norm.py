"""A residual addition and the LayerNorm after it become SkipLayerNorm."""

from dataclasses import dataclass

import onnx_ir as ir

from ..graph.dims import text
from ..ops.skip_layer_norm.op import OP as SKIP_LAYER_NORM
from .linear_parts import row_value
from .rewriter import Rewriter
from .rule import Conditions, Rule


@dataclass(frozen=True)
class Found:
    """x and skip are added (skip is the residual branch), `bias` is a constant row that was added to x before."""

    add: ir.Node
    x: ir.Value
    skip: ir.Value
    bias: ir.Value | None
    bias_add: ir.Node | None
    sum_is_read: bool


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.holds(rewriter.is_ours(node, "LayerNorm"), "this is no layer norm of ours")
    seen.holds(rewriter.input(node, 1) is not None, "the layer norm has no weight")
    given = [v for v in node.inputs[1:] if v is not None]
    seen.holds(all(v.producer() is None for v in given), "weight or bias of the layer norm are computed at run time")
    total = node.inputs[0]
    add = seen.found(
        rewriter.producer(total, "Add"), f"its input comes from {_source(rewriter, total)}, not from an addition"
    )
    first, second = add.inputs[0], add.inputs[1]
    assert first is not None
    assert second is not None
    assert total is not None
    for value in (first, second):
        seen.holds(rewriter.constant(value) is None, f"{value.name!r} is a constant, no residual branch", add)
        shapes = rewriter.shape(value), rewriter.shape(total)
        same = shapes[0] == shapes[1] and shapes[0] is not None
        seen.holds(same, f"{value.name!r} has shape {text(shapes[0])}, the sum {text(shapes[1])}", add)
    fresh = rewriter.is_ours(rewriter.producer(second), "Linear") and not rewriter.is_ours(
        rewriter.producer(first), "Linear"
    )
    x, skip = (second, first) if fresh else (first, second)
    bias_add, bias = _added_bias(rewriter, x, add)
    if bias_add is None and not fresh:
        bias_add, bias = _added_bias(rewriter, skip, add)
        x, skip = (skip, x) if bias_add is not None else (x, skip)
    if bias_add is not None:
        x = next(v for v in bias_add.inputs if v is not None and rewriter.constant(v) is None)
    return Found(add, x, skip, bias, bias_add, rewriter.read_elsewhere(total, [node]))


def _added_bias(rewriter: Rewriter, value: ir.Value, reader: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """The Add that gives `value` a constant row, when only `reader` reads the result."""
    node = rewriter.producer(value, "Add")
    if node is None or rewriter.only_consumer(value) is not reader:
        return None, None
    shape = rewriter.shape(value)
    for i in (0, 1):
        operand = node.inputs[i]
        if operand is None or shape is None or rewriter.constant(operand) is None:
            continue
        row, other = row_value(rewriter, operand, shape[-1]), node.inputs[1 - i]
        if row is not None and other is not None and rewriter.shape(other) == shape:
            return node, row
    return None, None


def _source(rewriter: Rewriter, value: ir.Value | None) -> str:
    node = rewriter.producer(value)
    return "an input of the graph" if node is None else f"{node.op_type} {node.name!r}"


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    weight, bias = rewriter.input(node, 1), rewriter.input(node, 2)
    old = [node, found.add, *([found.bias_add] if found.bias_add is not None else [])]
    results: list[ir.Value | None] = [node.outputs[0]]
    if found.sum_is_read:
        results.append(found.add.outputs[0])
    rewriter.replace(
        RULE.name,
        old,
        SKIP_LAYER_NORM,
        [found.x, found.skip, weight, bias, *([found.bias] if found.bias is not None else [])],
        {"epsilon": rewriter.attributes(node)["epsilon"]},
        results,
        note="with the sum" if found.sum_is_read else "",
        at=found.add,
    )


RULE = Rule(
    name="skip_layer_norm",
    doc="The addition of a residual branch and the LayerNorm after it become SkipLayerNorm; the sum is its second "
    "output where somebody else reads it.",
    anchors=frozenset({"LayerNorm"}),
    check=check,
    rewrite=rewrite,
    why="after the embedding, whose additions are not residual ones",
)
