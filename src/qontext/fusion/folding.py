"""Constants computed once, and shapes that need no computing."""

import math

import onnx_ir as ir
import torch

from ..errors import QontextError
from ..graph.attributes import values_of
from ..ops.standard.catalogue import lookup
from ..ops.standard.declare import Context
from .rewriter import Rewriter
from .rule import Conditions, Rule
from .tidy import reshape_target

_MOST_ELEMENTS = 1 << 18  # a result beyond this must share memory with an operand, or be a cast of it
_MOST_KNOWN = 1 << 10
# What is computed from shapes by these alone and is equal for two sets of sizes is equal for all: no comparison, no
# rounding, no minimum can tell sizes apart.
_EXACT = frozenset(
    {"Shape", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Cast", "Add", "Sub", "Mul", "Transpose"}
)


def check(node: ir.Node, rewriter: Rewriter) -> tuple[list[torch.Tensor], str]:
    """The results as constants."""
    seen = Conditions(node)
    op = lookup(node.op_type) if node.domain == "" else None
    seen.holds(op is not None and not op.data_dependent, "its result is no constant")
    seen.depth = 0
    assert op is not None
    seen.holds(not any(v.is_graph_output() for v in node.outputs), "its result is an output of the graph")
    seen.depth = 0
    held = [rewriter.constant(v) for v in node.inputs if v is not None]
    operands = [t for t in held if t is not None]
    if node.op_type != "Constant" and len(operands) != len(held):
        return _known(seen, node, rewriter)
    if not node.inputs and node.op_type == "Constant":
        constant = rewriter.constant(node.outputs[0])
        return [seen.found(constant, "the constant is of a kind that is not held")], "constant"
    size = sum(math.prod(t.shape) for t in operands)
    large = size > _MOST_ELEMENTS and node.op_type not in ("Reshape", "Unsqueeze", "Squeeze", "Flatten", "Cast")
    seen.holds(not large, "")
    seen.depth = 0
    context = Context(rewriter.inference.opset, tuple(bool(v.name) for v in node.outputs))
    inputs = [rewriter.constant(v) for v in node.inputs]
    try:
        result = op.run(inputs, values_of(node), context)
    except (QontextError, RuntimeError, ValueError, IndexError) as error:
        raise seen.refusal(f"its constants cannot be computed: {error}") from error
    results = list(result) if isinstance(result, tuple) else [result]
    tensors = [t for t in results if t is not None]
    grown = any(t.numel() > max(size, _MOST_ELEMENTS) for t in tensors)
    seen.holds(len(tensors) == len(results) and not grown, "")
    return [t.contiguous() for t in tensors], "computed from constants"


def _known(seen: Conditions, node: ir.Node, rewriter: Rewriter) -> tuple[list[torch.Tensor], str]:
    """Numbers that follow from shapes and are the same for all sizes."""
    values = list(node.outputs)
    seen.holds(node.op_type in _EXACT and len(values) == 1, "")
    seen.depth = 0
    pair = rewriter.inference.look(values[0])
    real = pair is not None and pair[0].device.type != "meta" and not pair[0].is_floating_point()
    seen.holds(real and pair is not None and pair[0].numel() <= _MOST_KNOWN, "")
    seen.depth = 0
    assert pair is not None
    seen.holds(torch.equal(*pair) and _exact(values[0], rewriter), "")
    return [pair[0].clone()], "follows from the shapes"


def _exact(value: ir.Value, rewriter: Rewriter, limit: int = 60) -> bool:
    """True when shapes and exact arithmetic alone lead to the value."""
    todo, count = [value], 0
    while todo:
        here = todo.pop()
        node = here.producer()
        count += 1
        if rewriter.constant(here) is not None:
            continue
        if node is None or node.domain != "" or node.op_type not in _EXACT or count > limit:
            return False
        if node.op_type != "Shape":
            todo += [v for v in node.inputs if v is not None]
    return True


def rewrite(node: ir.Node, found: tuple[list[torch.Tensor], str], rewriter: Rewriter) -> None:
    results, reason = found
    rewriter.fold(node, results, reason)


def check_shape(node: ir.Node, rewriter: Rewriter) -> torch.Tensor:
    """The constant target of a Reshape whose target is computed."""
    seen = Conditions(node)
    seen.holds(node.domain == "" and rewriter.constant(node.inputs[1]) is None, "its shape is a constant already")
    seen.depth = 0
    source, target = node.inputs[0], rewriter.inference.values(node.inputs[1])
    assert source is not None
    seen.holds(target is not None, "its shape depends on data")
    shape = rewriter.shape(node.outputs[0])
    fixed = reshape_target(rewriter.shape(source), shape)
    if fixed is None:
        raise Conditions(node).refusal("more than one size of its shape can only be computed at run time")
    return fixed


def rewrite_shape(node: ir.Node, target: torch.Tensor, rewriter: Rewriter) -> None:
    node.attributes.pop("allowzero", None)
    rewriter.set_inputs(node, {1: rewriter.shape_constant(target)})


RULE = Rule(
    name="constants",
    doc="What is computed from constants, or from shapes that are the same for all inputs, becomes a constant; large "
    "weights are not copied.",
    anchors=frozenset(),
    check=check,
    rewrite=rewrite,
    why="first of all: everything later asks for constants",
)

SHAPES = Rule(
    name="shapes",
    doc="The computed target of a Reshape becomes a constant (numbers, 0 for an axis that stays, one -1), and the "
    "chain of Shape, Gather and Concat that computed it goes.",
    anchors=frozenset({"Reshape"}),
    check=check_shape,
    rewrite=rewrite_shape,
    why="after constants, which shapes are made of",
)
