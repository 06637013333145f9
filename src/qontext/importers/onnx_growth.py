"""A few bytes of a file must not make terabytes.

Some operators read the size of their result from operands; others make constants grow step by step. Both are counted
before anything of that size is allocated.
"""

import math

import onnx_ir as ir
import torch

from ..errors import UnsupportedModelError
from ..ops.infer import Inference

MAX_ELEMENTS = 1 << 26
_MAX_RESULT = 1 << 33
_CONSTANT_BYTES = 1 << 30


def check_growth(node: ir.Node, inference: Inference) -> None:
    """Raises UnsupportedModelError when a node would make more than `MAX_ELEMENTS` elements out of small operands."""
    if node.domain != "" or node.op_type not in _COUNTS:
        return
    pairs = [inference.look(v) for v in node.inputs]
    for which in (0, 1):
        count = _COUNTS[node.op_type]([None if p is None else p[which] for p in pairs])
        if count > MAX_ELEMENTS:
            shown = "infinitely many" if math.isinf(count) else f"{count:.3g}"
            raise UnsupportedModelError(
                f"node {node.name!r} ({node.op_type}) would make {shown} elements; at most {MAX_ELEMENTS} are made "
                "from the sizes in a file"
            )


class Growth:
    """What the nodes of one graph make, counted node by node.

    Args:
        graph: its weights say how much may be computed from constants alone.
    """

    def __init__(self, graph: ir.Graph):
        weights = [v.const_value.nbytes for v in graph.initializers.values() if v.const_value is not None]
        # Folding a graph may hold each weight in a few forms at once (transposed, cast, joined), not in hundreds.
        self._left = _CONSTANT_BYTES + 4 * sum(weights)
        self._fed = set(graph.inputs)

    def count(self, node: ir.Node, inference: Inference) -> None:
        """Raises UnsupportedModelError when a result is too big, or constants have grown too much in all."""
        fed = any(v in self._fed for v in node.inputs)
        for value in node.outputs:
            if fed:
                self._fed.add(value)
            pair = inference.known.get(value)
            if pair is None:
                continue
            largest = max(t.numel() for t in pair)
            if not fed:
                self._left -= largest * pair[0].dtype.itemsize
            if largest > _MAX_RESULT or self._left < 0:
                raise UnsupportedModelError(
                    f"node {node.name!r} ({node.op_type}) makes {largest} elements"
                    + ("" if fed else ", and constants before it make many more")
                    + "; so much cannot come from a file of this size"
                )


Operands = list[torch.Tensor | None]


def _numbers(operands: Operands, index: int) -> list[float]:
    """The values of a small operand; none when it is absent, big, or its values are not known."""
    tensor = operands[index] if index < len(operands) else None
    if tensor is None or tensor.is_meta or tensor.numel() > 64:
        return []
    return [float(v) for v in tensor.reshape(-1).tolist()]


def _elements(operands: Operands, index: int) -> float:
    tensor = operands[index] if index < len(operands) else None
    return 1.0 if tensor is None else float(tensor.numel())


def _filled(operands: Operands) -> float:
    return math.prod(_numbers(operands, 0))


def _expanded(operands: Operands) -> float:
    return math.prod(max(1.0, n) for n in _numbers(operands, 1))


def _tiled(operands: Operands) -> float:
    return math.prod(_numbers(operands, 1)) * _elements(operands, 0)


def _counted(operands: Operands) -> float:
    bounds = [n for i in range(3) for n in _numbers(operands, i)[:1]]
    if len(bounds) != 3 or bounds[2] == 0 or not all(map(math.isfinite, bounds)):
        return 0.0 if len(bounds) != 3 or bounds[2] == 0 else math.inf
    return (bounds[1] - bounds[0]) / bounds[2]


def _hot(operands: Operands) -> float:
    return math.prod(_numbers(operands, 1)) * _elements(operands, 0)


def _padded(operands: Operands) -> float:
    x, pads = operands[0], _numbers(operands, 1)
    if x is None or not pads:
        return 0.0
    # Without knowing the axes: each pair of pads on the smallest other extent is at least this much.
    return max(map(abs, pads)) * (x.numel() / max(x.shape, default=1) if x.numel() else 1.0)


_COUNTS = {
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Tile": _tiled,
    "Range": _counted,
    "OneHot": _hot,
    "Pad": _padded,
}
