"""Constants computed once, and shapes that need no computing."""

import math

import onnx_ir as ir
import torch

from ..dtypes import from_onnx
from ..errors import NoFusion, QontextError
from ..graph.attributes import values_of
from ..graph.dims import Shape
from ..ops.standard.catalogue import lookup
from ..ops.standard.declare import Context
from .rewriter import Rewriter
from .rule import Rule
from .tidy import reshape_target

_MOST_ELEMENTS = 1 << 18
_COPIES_ARE_FINE = frozenset({"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Cast"})  # they share memory, or replace it
_MOST_KNOWN = 1 << 10
# What is computed from shapes by these alone and is equal for two sets of sizes is equal for all: no comparison, no
# rounding, no minimum can tell sizes apart.
_EXACT = frozenset(
    {"Shape", "Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Cast", "Add", "Sub", "Mul", "Transpose"}
)


def check(node: ir.Node, rewriter: Rewriter) -> tuple[list[torch.Tensor], str]:
    """The results as constants."""
    op = lookup(node.op_type) if node.domain == "" else None
    if op is None or op.data_dependent or any(v.is_graph_output() for v in node.outputs):
        raise NoFusion("its result is no constant, or an output of the graph")
    held = [None if v is None else rewriter.constant(v) for v in node.inputs]
    like = node.inputs[1] if node.op_type == "CastLike" else None
    if like is not None and like.dtype is not None:  # of which only the type counts
        held[1] = torch.empty(0, dtype=from_onnx(like.dtype).torch)
    operands = [t for t in held if t is not None]
    if len(operands) < sum(v is not None for v in node.inputs):
        return _known(node, rewriter)
    if node.op_type == "Constant":
        constant = rewriter.constant(node.outputs[0])
        if constant is None:
            raise NoFusion("the constant is of a kind that is not held")
        return [constant], "constant"
    size = sum(t.numel() for t in operands)
    small = max(size, _MOST_ELEMENTS) if node.op_type in _COPIES_ARE_FINE else _MOST_ELEMENTS
    if any(_elements(rewriter, v) > small for v in node.outputs):
        raise NoFusion("its result is large")
    context = Context(rewriter.inference.opset, tuple(bool(v.name) for v in node.outputs))
    try:
        result = op.run(held, values_of(node), context)
    except (QontextError, RuntimeError, ValueError, IndexError) as error:
        raise NoFusion(f"its constants cannot be computed: {error}") from error
    results = [t for t in (result if isinstance(result, tuple) else (result,)) if t is not None]
    if len(results) < len(node.outputs):
        raise NoFusion("one of its results is not computed")
    return [t.contiguous() for t in results], "computed from constants"


def _elements(rewriter: Rewriter, value: ir.Value) -> float:
    """How many elements a value has, infinity when that is not a number yet."""
    shape = rewriter.shape(value)
    return math.prod(d if isinstance(d, int) else math.inf for d in shape) if shape is not None else math.inf


def _known(node: ir.Node, rewriter: Rewriter) -> tuple[list[torch.Tensor], str]:
    """Numbers that follow from shapes and are the same for all sizes."""
    value = node.outputs[0]
    pair = rewriter.inference.look(value) if node.op_type in _EXACT and len(node.outputs) == 1 else None
    if pair is None or pair[0].device.type == "meta" or pair[0].is_floating_point() or pair[0].numel() > _MOST_KNOWN:
        raise NoFusion("its result depends on data")
    if not torch.equal(*pair) or not _exact(value, rewriter):
        raise NoFusion("its result depends on sizes")
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
    """The constant target of a Reshape or Expand whose target is computed."""
    source = node.inputs[0]
    if node.domain != "" or source is None or rewriter.constant(node.inputs[1]) is not None:
        raise NoFusion("its shape is a constant already")
    if rewriter.inference.values(node.inputs[1]) is None:
        raise NoFusion("its shape depends on data")
    write = reshape_target if node.op_type == "Reshape" else expand_target
    target = write(rewriter.shape(source), rewriter.shape(node.outputs[0]))
    if target is None:
        raise NoFusion("more than one size of its shape can only be computed at run time")
    return target


def expand_target(source: Shape | None, shape: Shape | None) -> torch.Tensor | None:
    """The constant that expands `source` to `shape` for all sizes: numbers, 1 for an axis that stays; or None."""
    if source is None or shape is None or len(shape) < len(source):
        return None
    aligned: Shape = (1,) * (len(shape) - len(source)) + source
    numbers = [d if isinstance(d, int) else 1 if d == s else 0 for d, s in zip(shape, aligned, strict=True)]
    return None if 0 in numbers else torch.tensor(numbers, dtype=torch.int64)


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
    doc="The computed target of a Reshape becomes a constant (numbers, 0 for an axis that stays, one -1), that of an "
    "Expand too (numbers, 1 for an axis that stays), and the chain of Shape, Gather and Concat that computed it goes.",
    anchors=frozenset({"Reshape", "Expand"}),
    check=check_shape,
    rewrite=rewrite_shape,
    why="after constants, which shapes are made of",
)
