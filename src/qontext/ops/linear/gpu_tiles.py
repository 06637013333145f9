"""Linear for few rows: a tile of the result a program; a tile may leave K in parts for its reader (`gpu_parts.py`).

With up to some hundred tokens the product is bound by latency: what pays is to keep every multiprocessor busy, to ask
for the weight before the kernel in front has ended (programmatic dependent launch), and to spare the pass for the
activation. The planner times the shapes below against each other and against the vendor's library.

A thin float32 product has a tile of its own: the library takes three kernels for 24 columns.
"""

from dataclasses import dataclass

import torch

from ..call import Call, Kernel
from ..gpu_launch import blocks, may_overlap, power_of_2
from .gpu_rows import Compute, halves_of_numbers, over_rows, sizes

_MOST_ROWS = 768
_LINE = 64  # halves in a line of the cache


@dataclass(frozen=True)
class Tile:
    """Rows and columns of y a program computes, depth of a step along K, parts that K is left in, and how it runs.

    most_rows: beyond so many rows it is not worth timing
    thin: it is for float32 and no more than so many columns of x; 0: for halves
    """

    rows: int
    columns: int
    depth: int
    parts: int
    warps: int
    stages: int
    most_rows: int = _MOST_ROWS
    thin: int = 0

    @property
    def name(self) -> str:
        kind = "thin" if self.thin else "tile"
        return f"triton.linear_{kind}.{self.rows}x{self.columns}x{self.depth}"


TILES = (
    Tile(64, 64, 64, 1, 4, 5),
    Tile(64, 32, 64, 1, 4, 5, most_rows=256),
    Tile(64, 64, 128, 1, 4, 3, most_rows=512),
)
THIN = Tile(32, 32, 32, 1, 4, 2, thin=64)


def supports(tile: Tile, call: Call) -> str | None:
    """Whether the tile suits the call, or the number that does not."""
    reason = halves_of_numbers(call, ("float32",)) if tile.thin else halves_of_numbers(call)
    if reason is not None:
        return reason
    rows, _, k = sizes(call)
    if tile.thin and k > tile.thin:
        return f"x has {k} columns, this tile is meant for at most {tile.thin}"
    if rows is not None and rows > tile.most_rows:
        return f"x has {rows} rows, this tile is meant for at most {tile.most_rows}"
    return None


def bind_rows(tile: Tile, call: Call) -> Compute:
    """Fills y `[rows, N]`, or `[parts, rows, N]` float32 of the products alone where the tile leaves K in parts."""
    from .gpu_kernel import linear_tile

    _, n, k = sizes(call)
    kind, overlap, constant = call.attributes["activation"], may_overlap(call), call.inputs[1]
    span = blocks(blocks(k, tile.parts), tile.depth) * tile.depth
    early = not tile.thin and overlap and constant is not None and constant.constant is not None
    lines = power_of_2(blocks(span, _LINE)) if early else 0

    def compute(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        tiles_of_rows = blocks(len(x), tile.rows)
        linear_tile[(tiles_of_rows * blocks(n, tile.columns), tile.parts)](
            x, weight, bias, residual, y, len(x), tiles_of_rows,
            n, k, tile.rows, tile.columns, tile.depth, tile.parts, span, lines, kind, overlap,
            num_warps=tile.warps, num_stages=tile.stages, launch_pdl=overlap,
        )  # fmt: skip

    return compute


def kernel(tile: Tile) -> Kernel:
    """The tile as a kernel of the operator."""
    return Kernel(
        tile.name,
        "cuda",
        lambda call: supports(tile, call),
        lambda call: over_rows(call, bind_rows(tile, call)),
        writes_out=True,
    )


KERNELS = tuple(kernel(tile) for tile in TILES)
THIN_KERNELS = (kernel(THIN),)
