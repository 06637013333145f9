"""Products that are left in parts: K is shared by several programs, and whoever reads the result adds the parts up.

With few rows there are too few tiles of y to keep every multiprocessor busy. Splitting K makes more programs, and the
sum costs nothing where the next kernel reads every number once anyway (a norm). The parts are float32 and are added in
their order, so results do not depend on who came last.
"""

from collections.abc import Callable

import torch

from ..call import Call
from . import gpu_early, gpu_tiles
from .gpu_early import Early
from .gpu_rows import sizes
from .gpu_tiles import Tile

_MOST_ROWS = 256
_MOST_PARTS = 12

# (x [rows, K], weight): the parts [parts, rows, N].
Parts = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

EARLY = (Early(64, 128, 384, 6), Early(64, 64, 256), Early(64, 128, 512))
TILES = (
    Tile(64, 64, 64, 4, 4, 5, most_rows=_MOST_ROWS),
    Tile(64, 32, 64, 2, 4, 5, most_rows=_MOST_ROWS),
)

# Kernels whose code these share; a change of it makes timings of these stale too.
MADE_OF = (*gpu_early.KERNELS, *gpu_tiles.KERNELS)


def count(shape: Early | Tile, k: int) -> int:
    """How many parts a shape leaves K in."""
    return shape.parts if isinstance(shape, Tile) else shape.parts(k)


def name(shape: Early | Tile, norm: str) -> str:
    """The name of a kernel that adds up in a norm."""
    own = f"{shape.name}.k{shape.parts}" if isinstance(shape, Tile) else shape.name
    return f"{own} + {norm}"


def supports(shape: Early | Tile, call: Call) -> str | None:
    """Whether a shape suits a Linear without activation, or the number that does not."""
    able = gpu_tiles.supports(shape, call) if isinstance(shape, Tile) else gpu_early.supports(shape, call)
    if able is not None:
        return able
    _, _, k = sizes(call)
    parts = count(shape, k)
    if not 2 <= parts <= _MOST_PARTS:
        return f"K is {k}: {parts} parts, the reader adds 2 to {_MOST_PARTS}"
    return None


def bind(shape: Early | Tile, call: Call) -> Parts:
    """A function that gives the parts; bias and activation are left to its reader."""
    _, n, k = sizes(call)
    parts = count(shape, k)
    compute = gpu_tiles.bind_rows(shape, call) if isinstance(shape, Tile) else gpu_early.bind_rows(shape, call)

    def run(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        rows = x.numel() // k
        y = torch.empty((parts, rows, n), dtype=torch.float32, device=x.device)
        if rows:
            compute(x.view(rows, k), weight, None, None, y)
        return y

    return run
