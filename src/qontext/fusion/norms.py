"""LayerNorm and RMSNorm, as ONNX operators and as what exporters take them apart into."""

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


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.holds(node.domain == "", "this is no standard operator")
    seen.depth = 0
    if node.op_type == "ReduceMean":
        return _decomposed(seen, node, rewriter)
    return _operator(seen, node, rewriter)


def _operator(seen: Conditions, node: ir.Node, rewriter: Rewriter) -> Found:
    """LayerNormalization or RMSNormalization over the last axis."""
    seen.depth = 1
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
    """A constant row, or a computed one that has exactly this shape."""
    if rewriter.constant(value) is not None:
        return row_value(rewriter, value, size)
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


def _decomposed(seen: Conditions, node: ir.Node, rewriter: Rewriter) -> Found:
    """From the mean of squares to the normalised value, then weight and bias where they follow."""
    square = _squared(rewriter, node.inputs[0])
    if square is None:
        raise seen.refusal("it is no mean of squares")
    seen.depth = 1
    seen.holds(over_last_axis(rewriter, node), "the mean of squares is not taken over the last axis alone")
    d, square_node = square
    nodes = [node, square_node]
    add = seen.found(_reader(rewriter, node.outputs[0], "Add"), "no epsilon is added to the mean of squares")
    epsilon = seen.found(
        _addend(rewriter, add, node.outputs[0]), "what is added to the mean of squares is no number", add
    )
    nodes.append(add)
    root, power = seen.found(_root(rewriter, add.outputs[0]), "no square root follows the epsilon", add)
    nodes += root
    divide = seen.found(_division(rewriter, root[-1].outputs[0], power), "nothing is divided by the root", root[-1])
    nodes.append(divide)
    numerator = next(v for v in divide.inputs if v is not root[-1].outputs[0])
    assert numerator is not None
    deviation = _deviation(rewriter, d)
    if deviation is None:
        seen.holds(numerator is d, "what is divided is not what was squared", divide)
        x, centred = d, False
    else:
        x, more = deviation
        other = _deviation(rewriter, numerator)
        same = numerator is d or (other is not None and other[0] is x)
        seen.holds(same, "what is divided is not what was squared", divide)
        nodes += more + (other[1] if other is not None else [])
        centred = True
    weight, bias, result, after = _affine(rewriter, divide.outputs[0], x, centred)
    return Found(x, epsilon, centred, weight, bias, result, nodes + after)


def _reader(rewriter: Rewriter, value: ir.Value, *op_types: str) -> ir.Node | None:
    """The only reader of a value, when it is of one of these standard operators."""
    node = rewriter.only_consumer(value)
    return node if node is not None and node.domain == "" and node.op_type in op_types else None


def _addend(rewriter: Rewriter, add: ir.Node, value: ir.Value) -> float | None:
    other = add.inputs[1] if add.inputs[0] is value else add.inputs[0]
    return rewriter.scalar(other)


def _root(rewriter: Rewriter, value: ir.Value) -> tuple[list[ir.Node], float] | None:
    """The nodes of a square root and its power: 0.5, or -0.5 when the reciprocal is taken with it."""
    node = _reader(rewriter, value, "Sqrt", "Pow")
    if node is None:
        return None
    power = 0.5 if node.op_type == "Sqrt" else rewriter.scalar(node.inputs[1])
    if power not in (0.5, -0.5):
        return None
    inverse = _reader(rewriter, node.outputs[0], "Reciprocal", "Div")
    if inverse is None or power == -0.5:
        return [node], power
    if inverse.op_type == "Reciprocal" or rewriter.scalar(inverse.inputs[0]) == 1.0:
        return [node, inverse], -0.5
    return [node], power


def _division(rewriter: Rewriter, root: ir.Value, power: float) -> ir.Node | None:
    """The node that divides by the root, or multiplies with its reciprocal."""
    node = _reader(rewriter, root, "Div" if power > 0 else "Mul")
    if node is None or node.inputs[0] is node.inputs[1] or (power > 0 and node.inputs[1] is not root):
        return None
    return node


def _affine(
    rewriter: Rewriter, value: ir.Value, x: ir.Value, centred: bool
) -> tuple[ir.Value | None, ir.Value | None, ir.Value, list[ir.Node]]:
    """Weight and bias where a multiplication with a row and an addition of one follow."""
    shape = rewriter.shape(x)
    width = shape[-1] if shape else None
    nodes: list[ir.Node] = []
    weight = bias = None
    for kind in ("Mul", "Add") if centred else ("Mul",):
        node = _reader(rewriter, value, kind)
        if node is None:
            continue
        other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
        row = None if other is None else row_value(rewriter, other, width)
        if row is None or row.dtype != x.dtype:
            break
        weight, bias = (row, bias) if kind == "Mul" else (weight, row)
        value = node.outputs[0]
        nodes.append(node)
    return weight, bias, value, nodes


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    op, name = (LAYER_NORM, LAYER.name) if found.centred else (RMS_NORM, RMS.name)
    inputs = [found.x, found.weight, found.bias] if found.centred else [found.x, found.weight]
    rewriter.replace(name, found.nodes, op, inputs, {"epsilon": found.epsilon}, [found.result])


def _only(centred: bool, node: ir.Node, rewriter: Rewriter) -> Found:
    found = check(node, rewriter)
    if found.centred != centred:
        raise Conditions(node).refusal("it is the other kind of norm")
    return found


LAYER = Rule(
    name="layer_norm",
    doc="LayerNormalization, and its parts (mean, difference, mean of squares, epsilon, root, division, weight, bias), "
    "become LayerNorm.",
    anchors=frozenset({"LayerNormalization", "ReduceMean"}),
    check=lambda node, rewriter: _only(True, node, rewriter),
    rewrite=rewrite,
    why="skip_layer_norm and embed_layer_norm look for it by name",
)

RMS = Rule(
    name="rms_norm",
    doc="RMSNormalization, and its parts (mean of squares, epsilon, root, division, weight), become RMSNorm.",
    anchors=frozenset({"RMSNormalization", "ReduceMean"}),
    check=lambda node, rewriter: _only(False, node, rewriter),
    rewrite=rewrite,
    why="after layer_norm, whose mean of squares is one of differences",
)
