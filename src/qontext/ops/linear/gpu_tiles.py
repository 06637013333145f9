"""Linear for few rows: a tile of the result a program; a tile may leave K in parts for its reader (`gpu_parts.py`).

With up to some hundred tokens the product is bound by latency: what pays is to keep every multiprocessor busy, to ask
for the weight before the kernel in front has ended (programmatic dependent launch), and to spare the pass for the
activation. The planner times the shapes below against each other and against the vendor's library.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...graph.dims import product, text
from ..call import Bound, Call, Kernel
from ..gpu_launch import blocks, may_overlap, power_of_2, triton_is_here
from ..native_kernel import even_or_none
from .gpu_vendor import one_float_dtype

_HALVES = ("float16", "bfloat16")
_MOST_ROWS = 768
_LINE = 64  # halves in a line of the cache


@dataclass(frozen=True)
class Tile:
    """Rows and columns of y a program computes, depth of a step along K, parts that K is left in, and how it runs.

    most_rows: beyond so many rows it is not worth timing
    """

    rows: int
    columns: int
    depth: int
    parts: int
    warps: int
    stages: int
    most_rows: int = _MOST_ROWS

    @property
    def name(self) -> str:
        return f"triton.linear_tile.{self.rows}x{self.columns}x{self.depth}"


TILES = (
    Tile(64, 64, 64, 1, 4, 5),
    Tile(64, 32, 64, 1, 4, 5, most_rows=256),
    Tile(64, 64, 128, 1, 4, 3, most_rows=512),
)


def sizes(call: Call) -> tuple[int | None, int, int]:
    """Rows of x (None when the number is open), rows of the weight and K; `halves_of_numbers` has to hold."""
    x, weight = call.inputs[:2]
    assert x is not None
    assert weight is not None
    assert weight.shape is not None
    count = None if x.shape is None else product(x.shape[:-1])
    n, k = weight.shape
    assert isinstance(n, int)
    assert isinstance(k, int)
    return count if isinstance(count, int) else None, n, k


def halves_of_numbers(call: Call) -> str | None:
    """Triton is here, operands are halves, and the weight's sizes are multiples of 8 other than 0."""
    weight = call.inputs[1]
    assert weight is not None
    reason = triton_is_here() or one_float_dtype(call, _HALVES)
    if reason is not None:
        return reason
    if weight.shape is None or not all(isinstance(d, int) and d > 0 and d % 8 == 0 for d in weight.shape):
        return f"the weight is {text(weight.shape)}, the kernel takes multiples of 8 other than 0"
    return None


def supports(tile: Tile, call: Call) -> str | None:
    """Whether the tile suits the call, or the number that does not."""
    reason = halves_of_numbers(call)
    if reason is not None:
        return reason
    rows, _, _ = sizes(call)
    if rows is not None and rows > tile.most_rows:
        return f"x has {rows} rows, this tile is meant for at most {tile.most_rows}"
    return None


def bind_rows(tile: Tile, call: Call) -> Any:
    """A function (x, weight, bias, residual, y) that fills y `[rows, N]`, or `[parts, rows, N]` float32."""
    from .gpu_kernel import linear_tile

    _, n, k = sizes(call)
    kind, overlap, weight = call.attributes["activation"], may_overlap(call), call.inputs[1]
    span = blocks(blocks(k, tile.parts), tile.depth) * tile.depth
    early = overlap and weight is not None and weight.constant is not None
    lines = power_of_2(blocks(span, _LINE)) if early else 0

    def run(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        rows = x.numel() // k
        if rows == 0:
            return
        tiles_of_rows = blocks(rows, tile.rows)
        linear_tile[(tiles_of_rows * blocks(n, tile.columns), tile.parts)](
            x, weight, bias, residual, y, rows, tiles_of_rows,
            n, k, tile.rows, tile.columns, tile.depth, tile.parts, span, lines, kind, overlap,
            num_warps=tile.warps, num_stages=tile.stages, launch_pdl=overlap,
        )  # fmt: skip

    return run


def bind(tile: Tile, call: Call) -> Bound:
    """Linear by this tile for any number of rows."""
    _, n, _ = sizes(call)
    compute = bind_rows(tile, call)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, weight, bias, residual = (even_or_none(t) for t in inputs[:4])
        assert x is not None
        y: torch.Tensor = x.new_empty((*x.shape[:-1], n)) if out is None else out[0]
        compute(x, weight, bias, residual, y)
        return y

    return run


def kernel(tile: Tile) -> Kernel:
    """The tile as a kernel of the operator."""
    return Kernel(tile.name, "cuda", lambda call: supports(tile, call), lambda call: bind(tile, call), writes_out=True)


KERNELS = tuple(kernel(tile) for tile in TILES)
