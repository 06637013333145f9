"""QuantLinear for few rows: a tile of the result a program. Latency decides there, so the weight is asked for early."""

from dataclasses import dataclass

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import blocks, may_overlap, power_of_2
from ..linear.gpu_rows import most_rows
from .gpu_rows import over_rows, ready, takes

_LINE = 128  # bytes in a line of the cache


@dataclass(frozen=True)
class Tile:
    """Rows and columns of y a program computes, depth of a step along K, and how it runs.

    most_rows: beyond so many rows it is not worth timing; None for a tile that any call can fall back on
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    most_rows: int | None

    @property
    def name(self) -> str:
        return f"triton.quant_tile.{self.rows}x{self.columns}x{self.depth}"


TILES = (
    Tile(64, 64, 128, 4, 4, None),
    Tile(64, 32, 256, 4, 4, 512),
)


def supports(tile: Tile, call: Call) -> str | None:
    """Whether the tile suits the call, or the number that does not."""
    reason = takes(call)
    return reason if reason is not None or tile.most_rows is None else most_rows(call, tile.most_rows)


def bind(tile: Tile, call: Call) -> Bound:
    """QuantLinear by this tile."""
    from .gpu_kernel import quant_tile

    made, kind, overlap = ready(call), call.attributes["activation"], may_overlap(call)
    lines = power_of_2(blocks(made.k, _LINE)) if overlap else 0

    def compute(
        x: torch.Tensor,
        row_scale: torch.Tensor | None,
        row_zero: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        tiles_of_rows = blocks(len(x), tile.rows)
        quant_tile[(tiles_of_rows * blocks(made.n, tile.columns),)](
            x, made.weight, made.scales, made.columns, made.shift, row_scale, row_zero, residual, *made.tail, y,
            len(x), tiles_of_rows,
            made.n, made.k, tile.rows, tile.columns, tile.depth, lines, kind, overlap,
            num_warps=tile.warps, num_stages=tile.stages, launch_pdl=overlap,
        )  # fmt: skip

    return over_rows(call, made, compute)


def kernel(tile: Tile) -> Kernel:
    """The tile as a kernel of the operator."""
    return Kernel(tile.name, "cuda", lambda call: supports(tile, call), lambda call: bind(tile, call), writes_out=True)


KERNELS = tuple(kernel(tile) for tile in TILES)
