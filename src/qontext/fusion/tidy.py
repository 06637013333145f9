"""Operators that do nothing, and pairs of them that do nothing together."""

from typing import Any

import onnx_ir as ir
import torch

from ..graph.dims import AnyDim, Shape
from ..ops.standard.declare import Attributes
from .rewriter import Rewriter
from .rule import Conditions, Rule

_ENDLESS = 1 << 30
_SAME_SHAPE = frozenset({"Reshape", "Expand", "Flatten"})
_SINGLE = frozenset({"Concat", "Sum", "Max", "Min", "Mean"})
_NEUTRAL = {"Mul": 1.0, "Div": 1.0, "Add": 0.0, "Sub": 0.0}
_ANCHORS = _SAME_SHAPE | _SINGLE | {"Identity", "Dropout", "Cast", "CastLike", "Transpose", "Slice", "Where", *_NEUTRAL}


def check(node: ir.Node, rewriter: Rewriter) -> tuple[ir.Value, str]:
    """The value that can be read instead, and the reason."""
    seen = Conditions(node)
    seen.candidate(node.domain == "" and bool(node.inputs), "this is no standard operator")
    instead, reason = _instead(node, rewriter)
    found = seen.found(instead, "it does something")
    seen.holds(found.dtype == node.outputs[0].dtype, "it changes the data type")
    seen.holds(not any(v.uses() or v.is_graph_output() for v in node.outputs[1:]), "its further outputs are read")
    seen.holds(rewriter.can_stand_in(found, node.outputs[0]), "it gives an output of the graph its name")
    return found, reason


def _instead(node: ir.Node, rewriter: Rewriter) -> tuple[ir.Value | None, str]:
    kind, x = node.op_type, node.inputs[0]
    if x is None:
        return None, ""
    attributes = rewriter.attributes(node)
    same = rewriter.shape(x) is not None and rewriter.shape(x) == rewriter.shape(node.outputs[0])
    if kind == "Identity":
        return x, "Identity"
    if kind == "Dropout":
        return (x, "Dropout at inference") if _is_inference(node, rewriter, attributes) else (None, "")
    if kind in ("Cast", "CastLike"):
        return (x, "cast to its own data type") if x.dtype == node.outputs[0].dtype else (None, "")
    if kind in _SINGLE:
        return (x, f"{kind} of one operand") if len(node.inputs) == 1 else (None, "")
    if kind == "Transpose":
        order = attributes.get("perm")
        return (x, "axes in their own order") if order == sorted(order or [1, 0]) else (None, "")
    if kind in _SAME_SHAPE and same:
        return x, f"{kind} to its own shape"
    if kind == "Slice" and same and _takes_all(node, rewriter, rewriter.shape(x) or ()):
        return x, "Slice of everything"
    if kind in _NEUTRAL:
        return _neutral(node, rewriter)
    if kind == "Where":
        return _decided(node, rewriter)
    return None, ""


def _is_inference(node: ir.Node, rewriter: Rewriter, attributes: Attributes) -> bool:
    training = rewriter.input(node, 2)
    if training is None:
        return attributes.get("is_test", 1) != 0
    constant = rewriter.constant(training)
    return constant is not None and not bool(constant)


def _takes_all(node: ir.Node, rewriter: Rewriter, shape: Shape) -> bool:
    """True when starts, ends and steps say "all" whatever the sizes are."""
    starts = rewriter.inference.values(node.inputs[1])
    ends = rewriter.inference.values(node.inputs[2])
    axes = rewriter.inference.values(rewriter.input(node, 3)) if rewriter.input(node, 3) is not None else None
    steps = rewriter.constant(rewriter.input(node, 4))
    if starts is None or ends is None or (steps is not None and bool((steps != 1).any())):
        return False
    places: list[AnyDim] = axes if axes is not None else list(range(len(starts)))
    for start, end, axis in zip(starts, ends, places, strict=True):
        if start != 0 or not isinstance(axis, int):
            return False
        if end != shape[axis % len(shape)] and not (isinstance(end, int) and end >= _ENDLESS):
            return False
    return True


def _neutral(node: ir.Node, rewriter: Rewriter) -> tuple[ir.Value | None, str]:
    """Mul and Div by 1, Add and Sub of 0, where the constant does not stretch the other operand."""
    for i in (1, 0) if node.op_type in ("Mul", "Add") else (1,):
        number, other = rewriter.scalar(node.inputs[i]), node.inputs[1 - i]
        if number == _NEUTRAL[node.op_type] and other is not None and rewriter.constant(other) is None:
            shape = rewriter.shape(other)
            if shape is not None and shape == rewriter.shape(node.outputs[0]):
                return other, f"{node.op_type} of {number:g}"
    return None, ""


def _decided(node: ir.Node, rewriter: Rewriter) -> tuple[ir.Value | None, str]:
    """Where whose constant condition takes everything from one side."""
    condition = rewriter.constant(node.inputs[0])
    if condition is None or condition.numel() == 0:
        return None, ""
    for side, taken in ((1, bool(condition.all())), (2, not bool(condition.any()))):
        value = node.inputs[side]
        if taken and value is not None and rewriter.shape(value) == rewriter.shape(node.outputs[0]):
            return value, "Where with a constant condition"
    return None, ""


def rewrite(node: ir.Node, found: tuple[ir.Value, str], rewriter: Rewriter) -> None:
    instead, reason = found
    rewriter.remove(node, instead, reason)


def check_pair(node: ir.Node, rewriter: Rewriter) -> tuple[ir.Node, dict[str, Any]]:
    """The operator before, and what one operator in place of both needs."""
    seen = Conditions(node)
    before = rewriter.producer(node.inputs[0], node.op_type)
    pair = node.domain == "" and before is not None and before.domain == "" and before.inputs[0] is not None
    seen.holds(pair, "it does not follow another one of its kind")
    assert before is not None
    if node.op_type == "Transpose":
        first, second = (rewriter.attributes(n).get("perm") for n in (before, node))
        orders = seen.found((first, second) if first and second else None, "an order of axes is left to the default")
        return before, {"perm": [orders[0][i] for i in orders[1]]}
    return before, {}


def rewrite_pair(node: ir.Node, found: tuple[ir.Node, dict[str, Any]], rewriter: Rewriter) -> None:
    before, attributes = found
    source = before.inputs[0]
    assert source is not None
    if node.op_type == "Transpose":
        rewriter.replace(PAIR.name, [node, before], "Transpose", [source], attributes, [node.outputs[0]])
        return
    # What a 0 in the second shape copies is known only where that shape is a constant of the fused Reshape too.
    target = reshape_target(rewriter.shape(source), rewriter.shape(node.outputs[0]))
    if target is None:
        raise Conditions(node).refusal("the shape cannot be written without the one between")
    rewriter.replace(
        PAIR.name, [node, before], "Reshape", [source, rewriter.shape_constant(target)], {}, [node.outputs[0]]
    )


def reshape_target(source: Shape | None, shape: Shape | None) -> torch.Tensor | None:
    """The constant `[rank]` that reshapes `source` to `shape` for all sizes: numbers, 0 to copy, one -1; or None."""
    if source is None or shape is None or any(d is None or d == 0 for d in shape):
        return None
    numbers: list[int] = []
    for i, dim in enumerate(shape):
        if isinstance(dim, int):
            numbers.append(dim)
        elif i < len(source) and source[i] == dim:
            numbers.append(0)
        else:
            numbers.append(-1)
    return torch.tensor(numbers, dtype=torch.int64) if numbers.count(-1) <= 1 else None


RULE = Rule(
    name="tidy",
    doc="Identity, Dropout at inference, casts, shapes, slices and transposes that change nothing, additions of 0 and "
    "multiplications by 1 are taken out, and Where with a condition that is constant.",
    anchors=_ANCHORS,
    check=check,
    rewrite=rewrite,
    why="later rules then never meet an operator that does nothing",
)

PAIR = Rule(
    name="pairs",
    doc="A Reshape of a Reshape becomes one Reshape, a Transpose of a Transpose one Transpose.",
    anchors=frozenset({"Reshape", "Transpose"}),
    check=check_pair,
    rewrite=rewrite_pair,
    why="last, when the rules that look for a certain shape between two Reshapes have found it",
)
