"""LayerNorm and RMSNorm, as ONNX operators and as what exporters take them apart into."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from ..ops.layer_norm.op import OP as LAYER_NORM
from ..ops.rms_norm.op import OP as RMS_NORM
from .linear_parts import row_value
from .rewriter import Rewriter
from .rule import Conditions, Rule


@dataclass
class Found:
    """What a norm computes: `centred` is LayerNorm, else RMSNorm; weight and bias are rows [E]."""

    x: ir.Value
    epsilon: float
    centred: bool
    weight: ir.Value | None
    bias: ir.Value | None
    result: ir.Value
    nodes: list[ir.Node] = field(default_factory=list)


def check(node: ir.Node, rewriter: Rewriter, centred: bool) -> Found:
    """What to put in place of a norm of this kind."""
    seen = Conditions(node)
    seen.candidate(node.domain == "", "this is no standard operator")
    return (
        _decomposed(seen, node, rewriter, centred) if node.op_type == "ReduceMean" else _operator(seen, node, rewriter)
    )


def _operator(seen: Conditions, node: ir.Node, rewriter: Rewriter) -> Found:
    """LayerNormalization or RMSNormalization over the last axis."""
    seen.depth += 1
    attributes, x, scale = rewriter.attributes(node), node.inputs[0], node.inputs[1]
    assert x is not None
    assert scale is not None
    rank, shape = rewriter.rank(x), rewriter.shape(x)
    axis = attributes.get("axis", -1)
    seen.holds(
        rank is not None and axis in (-1, rank - 1), f"it normalises from axis {axis} on, not only over the last"
    )
    seen.holds(not any(v.uses() or v.is_graph_output() for v in node.outputs[1:]), "mean or deviation are read too")
    assert shape is not None
    weight = seen.found(
        _row(rewriter, scale, shape[-1]), f"its scale {scale.name!r} is no constant of {shape[-1]} numbers"
    )
    given = rewriter.input(node, 2)
    bias = None
    if given is not None:
        bias = seen.found(
            _row(rewriter, given, shape[-1]), f"its bias {given.name!r} is no constant of {shape[-1]} numbers"
        )
    same = all(v is None or v.dtype == x.dtype for v in (weight, bias))
    seen.holds(same, f"its scale is {weight.dtype}, its input {x.dtype}")
    centred = node.op_type == "LayerNormalization"
    return Found(x, float(attributes.get("epsilon", 1e-5)), centred, weight, bias, node.outputs[0], [node])


def _row(rewriter: Rewriter, value: ir.Value, size: object) -> ir.Value | None:
    """A constant row, or a computed one that has, or had before it got more axes, exactly this shape."""
    if rewriter.constant(value) is not None:
        return row_value(rewriter, value, size)
    node = rewriter.producer(value, "Flatten", "Unsqueeze", "Reshape")
    if node is not None and node.domain == "" and node.inputs[0] is not None and rewriter.shape(value) != (size,):
        value = node.inputs[0]
    return value if rewriter.shape(value) == (size,) else None


def over_last_axis(rewriter: Rewriter, node: ir.Node) -> bool:
    """True for a reduction over the last axis alone that keeps it as an axis of size 1."""
    attributes = rewriter.attributes(node)
    axes = attributes.get("axes")
    if axes is None and rewriter.input(node, 1) is not None:
        tensor = rewriter.constant(node.inputs[1])
        axes = None if tensor is None else tensor.flatten().tolist()
    rank = rewriter.rank(node.inputs[0])  # type: ignore[arg-type]
    return bool(attributes.get("keepdims", 1)) and rank is not None and axes in ([-1], [rank - 1])


def _squared(rewriter: Rewriter, value: ir.Value | None) -> tuple[ir.Value, ir.Node] | None:
    """d and the node of d^2."""
    node = rewriter.producer(value, "Pow", "Mul")
    if node is None or node.domain != "" or node.inputs[0] is None:
        return None
    if node.op_type == "Mul":
        return (node.inputs[0], node) if node.inputs[0] is node.inputs[1] else None
    return (node.inputs[0], node) if rewriter.scalar(node.inputs[1]) == 2.0 else None


def _deviation(rewriter: Rewriter, value: ir.Value) -> tuple[ir.Value, list[ir.Node]] | None:
    """x and the nodes of x - mean(x)."""
    sub = rewriter.producer(value, "Sub")
    if sub is None or sub.domain != "" or sub.inputs[0] is None:
        return None
    mean = rewriter.producer(sub.inputs[1], "ReduceMean")
    if mean is None or mean.inputs[0] is not sub.inputs[0] or not over_last_axis(rewriter, mean):
        return None
    return sub.inputs[0], [sub, mean]


def _decomposed(seen: Conditions, node: ir.Node, rewriter: Rewriter, centred: bool) -> Found:
    """From the mean of squares to the normalised value, then weight and bias where they follow."""
    square = _squared(rewriter, node.inputs[0])
    if square is None:
        raise seen.refusal("it is no mean of squares")
    d, square_node = square
    deviation, variance = _deviation(rewriter, d), _variance(rewriter, node.outputs[0], d)
    if centred != (deviation is not None or variance is not None):
        raise seen.refusal("it is the other kind of norm")
    seen.depth += 1
    seen.holds(over_last_axis(rewriter, node), "the mean of squares is not taken over the last axis alone")
    nodes, spread = [node, square_node], node.outputs[0]
    if variance is not None:
        nodes += variance
        spread = variance[0].outputs[0]
    x = deviation[0] if deviation is not None else d
    adds = [n for n in _readers(rewriter, spread, "Add") if _addend(rewriter, n, spread) is not None]
    seen.holds(adds, "no epsilon is added to the mean of squares")
    epsilon = _addend(rewriter, adds[0], spread)
    assert epsilon is not None
    numerators = []
    for divided, way in _quotients(rewriter, adds[0].outputs[0]):
        numerators.append(divided)
        other = _deviation(rewriter, divided)
        if (other[0] if other is not None else None) is x if centred else divided is x:
            nodes += [adds[0], *way, *(other[1] if other is not None else [])]
            nodes += deviation[1] if deviation is not None else []
            weight, bias, result, after = _affine(rewriter, way[-1].outputs[0], x, centred)
            return Found(x, epsilon, centred, weight, bias, result, nodes + after)
    seen.holds(numerators, "nothing is divided by the root of the mean of squares", adds[0])
    raise seen.refusal(f"what is divided, {numerators[0].name!r}, is not what was squared", adds[0])


def _variance(rewriter: Rewriter, mean_of_squares: ir.Value, x: ir.Value) -> list[ir.Node] | None:
    """The nodes of mean(x^2) - mean(x)^2, the difference first."""
    for node in _readers(rewriter, mean_of_squares, "Sub"):
        square = _squared(rewriter, node.inputs[1])
        mean = rewriter.producer(square[0], "ReduceMean") if square is not None else None
        if square is not None and mean is not None and mean.inputs[0] is x and over_last_axis(rewriter, mean):
            return [node, square[1], mean]
    return None


def _readers(rewriter: Rewriter, value: ir.Value, *op_types: str) -> list[ir.Node]:
    """The standard operators of these types that read a value."""
    return [n for n in rewriter.consumers(value) if n.domain == "" and n.op_type in op_types]


def _addend(rewriter: Rewriter, add: ir.Node, value: ir.Value) -> float | None:
    """The number that is added to a value."""
    return rewriter.scalar(add.inputs[1] if add.inputs[0] is value else add.inputs[0])


def _quotients(rewriter: Rewriter, value: ir.Value) -> Iterator[tuple[ir.Value, list[ir.Node]]]:
    """(numerator, nodes) for everything that is divided by the root of a value, the division last."""
    for root in _readers(rewriter, value, "Sqrt", "Pow"):
        power = 0.5 if root.op_type == "Sqrt" else rewriter.scalar(root.inputs[1])
        here = root.outputs[0]
        if power == -0.5:
            yield from _factors(rewriter, here, [root])
        if power != 0.5:
            continue
        for node in _readers(rewriter, here, "Div", "Reciprocal"):
            if node.op_type == "Reciprocal" or rewriter.scalar(node.inputs[0]) == 1.0:
                yield from _factors(rewriter, node.outputs[0], [root, node])
            elif node.inputs[1] is here and node.inputs[0] is not None:
                yield node.inputs[0], [root, node]


def _factors(rewriter: Rewriter, value: ir.Value, nodes: list[ir.Node]) -> Iterator[tuple[ir.Value, list[ir.Node]]]:
    for node in _readers(rewriter, value, "Mul"):
        other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
        if other is not None and other is not value:
            yield other, [*nodes, node]


def _affine(
    rewriter: Rewriter, value: ir.Value, x: ir.Value, centred: bool
) -> tuple[ir.Value | None, ir.Value | None, ir.Value, list[ir.Node]]:
    """Weight and bias where a multiplication with a row and an addition of one follow."""
    shape = rewriter.shape(x)
    width = shape[-1] if shape else None
    nodes: list[ir.Node] = []
    weight = bias = None
    for kind in ("Mul", "Add") if centred else ("Mul",):
        node = rewriter.only_consumer(value)
        if node is None or node.domain != "" or node.op_type != kind:
            continue
        other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
        row = None if other is None else _row(rewriter, other, width)
        if row is None or row.dtype != x.dtype or rewriter.shape(node.outputs[0]) != shape:
            break
        weight, bias = (row, bias) if kind == "Mul" else (weight, row)
        value = node.outputs[0]
        nodes.append(node)
    return weight, bias, value, nodes


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    op, name = (LAYER_NORM, LAYER.name) if found.centred else (RMS_NORM, RMS.name)
    inputs = [found.x, found.weight, found.bias] if found.centred else [found.x, found.weight]
    rewriter.replace(name, found.nodes, op, inputs, {"epsilon": found.epsilon}, [found.result])


LAYER = Rule(
    name="layer_norm",
    doc="LayerNormalization, and its parts (mean, difference, mean of squares, epsilon, root, division, weight, bias), "
    "become LayerNorm.",
    anchors=frozenset({"LayerNormalization", "ReduceMean"}),
    check=lambda node, rewriter: check(node, rewriter, centred=True),
    rewrite=rewrite,
    why="skip_layer_norm and embed_layer_norm look for it by name",
)

RMS = Rule(
    name="rms_norm",
    doc="RMSNormalization, and its parts (mean of squares, epsilon, root, division, weight), become RMSNorm.",
    anchors=frozenset({"RMSNormalization", "ReduceMean"}),
    check=lambda node, rewriter: check(node, rewriter, centred=False),
    rewrite=rewrite,
    why="after layer_norm, whose mean of squares is one of differences",
)
