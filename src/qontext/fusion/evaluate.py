"""Running a small part of a graph on real numbers, to see what it computes.

Masks, positions and token types are often made by dozens of shape and index operators. What they compute is plain once
they are run: for chosen sizes of the named dimensions, with chosen tensors in place of some values. A result that is
the same function for different sizes and random tensors is that function, provided that no constant in the chain
compares positions with a length beyond those sizes; `trial_sizes` chooses sizes beyond them.
"""

from collections.abc import Mapping

import onnx_ir as ir
import torch

from ..errors import NoFusion, QontextError
from ..graph.attributes import values_of
from ..graph.dims import Dim
from ..ops.standard.catalogue import lookup
from ..ops.standard.declare import Context
from .rewriter import UNNAMED, Rewriter

_ELEMENTWISE = {
    "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sign", "Pow", "Mod", "Max", "Min", "Clip", "Sqrt", "Reciprocal", "Exp",
    "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not", "And", "Or", "Xor", "Where", "IsNaN", "IsInf",
    "BitwiseAnd", "BitwiseOr", "BitwiseNot", "Cast", "CastLike", "Identity", "Floor", "Relu",
}  # fmt: skip
_SHAPES = {
    "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Expand", "Tile", "Slice", "Split", "Concat", "Pad",
    "Gather", "GatherElements", "GatherND", "Range", "ConstantOfShape", "Trilu", "CumSum", "EyeLike", "ReduceSum",
    "Constant", "ScatterND", "ScatterElements",
}  # fmt: skip
ALLOWED = frozenset(_ELEMENTWISE | _SHAPES)
_COMPARES = frozenset({"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "Min", "Max", "Clip", "Trilu"})
_COUNTS = frozenset({"Add", "Sub", "Mul", "Div", "Mod", "Slice"})
_INDEXES = frozenset({"Slice", "Gather", "GatherElements", "GatherND", "Expand"})
_MOST_NODES = 400
_ENDLESS = 1 << 20  # numbers from here on are "to the end" and fills, not lengths
_FARTHEST = 2100  # a mask of that many queries and keys still takes some milliseconds an operator


class Trial:
    """One evaluation: `sizes` for the named dimensions, `given` tensors in place of values.

    Raises NoFusion where a value depends on something that is neither given nor constant.
    """

    def __init__(self, rewriter: Rewriter, sizes: Mapping[str, int], given: Mapping[ir.Value, torch.Tensor]):
        self.rewriter = rewriter
        self.sizes = sizes
        self.results: dict[ir.Value, torch.Tensor] = dict(given)
        self.count = 0

    def shape(self, value: ir.Value) -> list[int]:
        """The shape of a value under the sizes of this trial."""
        dims = self.rewriter.shape(value)
        if dims is None:
            raise NoFusion(f"the shape of {value.name!r} is unknown")
        numbers = []
        for dim in dims:
            if isinstance(dim, int):
                numbers.append(dim)
            elif dim is None or any(symbol not in self.sizes for symbol in dim.symbols):
                raise NoFusion(f"the size {dim} of {value.name!r} follows from no input")
            else:
                numbers.append(dim.value(self.sizes))
        return numbers

    def run(self, value: ir.Value) -> torch.Tensor:
        """The tensor that `value` is in this trial; what was computed on the way is kept for the next one."""
        self.count = 0
        return self.value(value)

    def value(self, wanted: ir.Value) -> torch.Tensor:
        todo = [wanted]
        while todo:
            value = todo[-1]
            missing = [] if value in self.results else self._missing(value)
            todo += missing
            if not missing:
                todo.pop()
                if value not in self.results:
                    self._compute(value)
        return self.results[wanted]

    def _missing(self, value: ir.Value) -> list[ir.Value]:
        """What has to be known before a value can be computed; a constant is known at once."""
        constant = self.rewriter.constant(value)
        if constant is not None:
            self.results[value] = constant
            return []
        node = value.producer()
        if node is None:
            raise NoFusion(f"it depends on the input {value.name!r}")
        if node.domain != "" or node.op_type not in ALLOWED | {"Shape"}:
            raise NoFusion(f"it depends on what {node.op_type} {node.name!r} computes")
        if node.op_type == "Shape":
            return []
        return [v for v in node.inputs if v is not None and v not in self.results]

    def _compute(self, value: ir.Value) -> None:
        node = value.producer()
        assert node is not None
        self.count += 1
        if self.count > _MOST_NODES:
            raise NoFusion(f"more than {_MOST_NODES} operators compute it")
        inputs: list[torch.Tensor | None] = [None if v is None else self.results.get(v) for v in node.inputs]
        if node.op_type == "Shape" and node.inputs[0] is not None:
            inputs = [torch.empty(self.shape(node.inputs[0]), device="meta")]
        op = lookup(node.op_type)
        assert op is not None
        context = Context(self.rewriter.inference.opset, tuple(bool(v.name) for v in node.outputs))
        try:
            result = op.run(inputs, values_of(node), context)
        except (QontextError, RuntimeError, IndexError, ValueError, NotImplementedError) as error:
            what = f"{node.op_type} {node.name!r} cannot be run on sizes {dict(self.sizes)}"
            raise NoFusion(f"{what}: {error}") from error
        for output, tensor in zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=False):
            if tensor is not None:
                self.results[output] = tensor


def sources(rewriter: Rewriter, value: ir.Value) -> tuple[list[ir.Value], list[ir.Node]]:
    """What a value is computed from.

    Returns:
        The values that are neither constant nor computed by an operator that a trial may run, and the nodes between.
        Shapes count as known.
    Raises:
        NoFusion: too many operators lead there.
    """
    leaves: dict[ir.Value, None] = {}
    nodes: dict[ir.Node, None] = {}
    todo = [value]
    while todo:
        if len(nodes) > _MOST_NODES:
            raise NoFusion(f"more than {_MOST_NODES} operators compute it")
        here = todo.pop()
        node = here.producer()
        if here in leaves or node in nodes or rewriter.constant(here) is not None:
            continue
        if node is not None and node.domain == "" and node.op_type == "Shape":
            nodes[node] = None
        elif node is not None and node.domain == "" and node.op_type in ALLOWED:
            nodes[node] = None
            todo += [v for v in node.inputs if v is not None]
        else:
            leaves[here] = None
    return list(leaves), list(nodes)


def trial_sizes(rewriter: Rewriter, value: ir.Value, nodes: list[ir.Node]) -> list[dict[str, int]]:
    """Two sets of sizes for the named dimensions, under which the nodes show all that they can do.

    The sequence length (the last axis of `value`) goes once beyond every length that a constant may stand for, but not
    beyond the tables that are indexed by it, and is small the other time.
    Raises NoFusion when that length is too large to try.
    """
    shape = rewriter.shape(value) or ()
    last = shape[-1] if shape else None
    stretched = last.symbols if isinstance(last, Dim) else ()
    longest, tables = max(_lengths(rewriter, nodes), default=0), _tables(rewriter, nodes)
    far = min(tables) if tables else 2 * longest + 7
    if far > _FARTHEST:
        raise NoFusion(f"it compares positions with {longest or far}, which is too far to try out")
    if far <= longest:
        raise NoFusion(f"it compares positions with {longest}, and its tables end at {far}")
    names = [n for n in rewriter.inference.sizes if not UNNAMED.fullmatch(n)]
    near = min(far, 5)
    sizes = []
    for turn, length in enumerate((far, near)):
        others = {name: 2 + turn + 2 * i for i, name in enumerate(names)}
        sizes.append({name: length if name in stretched else number for name, number in others.items()})
    return sizes


def _lengths(rewriter: Rewriter, nodes: list[ir.Node]) -> list[int]:
    """Numbers that positions may be compared with: windows, limits, offsets."""
    found = []
    for node in nodes:
        if node.op_type not in _COMPARES | _COUNTS:
            continue
        for operand in node.inputs:
            tensor = rewriter.constant(operand)
            if tensor is None or not 0 < tensor.numel() <= 64 or tensor.dtype == torch.bool:
                continue
            if tensor.is_floating_point() and node.op_type not in _COMPARES:
                continue  # a fill such as -10000.0
            numbers = [abs(number) for number in tensor.double().flatten().tolist()]
            found += [int(number) for number in numbers if number < _ENDLESS]
    return found


def _tables(rewriter: Rewriter, nodes: list[ir.Node]) -> list[int]:
    """The lengths of constant tables that are indexed: buffers of positions, token types, causal masks."""
    found = []
    for node in nodes:
        tensor = rewriter.constant(node.inputs[0]) if node.op_type in _INDEXES and node.inputs else None
        if tensor is not None and tensor.numel() > 8:
            found.append(max(tensor.shape))
    return found
