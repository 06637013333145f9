"""Sizes that a file declares open although only one number fits.

Tracing exporters write some sizes of their example into the graph as constants (`torch.nn.MultiheadAttention` its key
length, into the target of a Reshape). Such a file runs at the example's size alone, whatever its inputs say.
"""

from collections import Counter

import onnx_ir as ir

from ..graph.dims import AnyDim, Dim, product
from ..ops.infer import Inference


def fix_size(graph: ir.Graph, node: ir.Node, inference: Inference) -> bool:
    """Writes the only number that fits into the inputs, when `node` is a Reshape that no other size passes.

    Returns:
        True when a size was fixed; everything is to be inferred anew then.
    """
    if node.domain != "" or node.op_type != "Reshape" or len(node.inputs) != 2 or node.inputs[0] is None:
        return False
    shape, target = inference.shape(node.inputs[0]), inference.values(node.inputs[1])
    if shape is None or target is None or any(d in (0, -1) for d in target):
        return False
    found = _only_solution(product(shape), product(target))
    if found is None:
        return False
    name, number = found
    changed = False
    for value in graph.inputs:
        before = list(value.shape or ())
        after = [number if not isinstance(d, int) and d.value == name else d for d in before]
        if after != before:
            value.shape, changed = ir.Shape(after), True
    return changed


def _only_solution(have: AnyDim, want: AnyDim) -> tuple[str, int] | None:
    """The size and its number that make two products equal, when they differ in one size that stands in one of them."""
    one, other = (_factors(dim) for dim in (have, want))
    if one is None or other is None:
        return None
    here, there = one[1] - other[1], other[1] - one[1]
    if there:
        (one, other), (here, there) = (other, one), (there, here)
    if there or list(here.values()) != [1] or not one[0] or other[0] % one[0]:
        return None
    return next(iter(here)), other[0] // one[0]


def _factors(dim: AnyDim) -> tuple[int, Counter[str]] | None:
    """(number, sizes) of a product; None for a sum."""
    if isinstance(dim, Dim):
        return None if dim.offset else (dim.coefficient, Counter(dim.symbols))
    return None if dim is None else (dim, Counter())
