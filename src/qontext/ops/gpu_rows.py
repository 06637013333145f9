"""What the kernels that move rows share: what they take, tiles, and tensors seen as rows of plain numbers."""

import math
from collections.abc import Sequence

import torch

from ..graph.dims import text
from .call import Call
from .gpu_launch import blocks, power_of_2, triton_is_here
from .native_kernel import even

_TILE = 4096
_WIDEST = 2048
# Rows are moved, not computed with: any type of the same width will do.
_BY_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def rows_support(call: Call, leading: int) -> str | None:
    """Triton is here, and the sizes of x after its `leading` axes are numbers other than 0."""
    x = call.inputs[0]
    assert x is not None
    if x.shape is None:
        return "the rank of x is unknown"
    tail = x.shape[leading:]
    if any(not isinstance(d, int) for d in tail):
        return f"the rows of x {text(x.shape)} have no number for a size"
    return f"the rows of x {text(x.shape)} are empty" if 0 in tail else triton_is_here()


def row_width(call: Call, leading: int) -> int:
    """How many elements a row of x has."""
    x = call.inputs[0]
    assert x is not None
    assert x.shape is not None
    return math.prod(d for d in x.shape[leading:] if isinstance(d, int))


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, contiguous, as integers of the same width."""
    return even(tensor).view(_BY_SIZE[tensor.element_size()])


def tile(width: int, rows: int) -> tuple[tuple[int, int], int, int]:
    """The grid, the columns and the rows of a tile for `rows` rows of `width` numbers."""
    columns = min(power_of_2(width), _WIDEST)
    each = min(max(_TILE // columns, 1), power_of_2(rows))
    return (blocks(rows, each), blocks(width, columns)), columns, each


def fresh(out: Sequence[torch.Tensor | None] | None, like: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The tensor that takes the result: the caller's, or a new one."""
    given = None if out is None else out[0]
    return like.new_empty(tuple(shape)) if given is None else given
