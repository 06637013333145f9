"""Linear for many rows on Hopper: two teams of warps take turns, one's result beside the other's product.

The kernel is written in Gluon (`gpu_hopper_kernel.py`), which Triton's interpreter does not run.
"""

from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gluon_maps import map_of
from ..gpu_launch import blocks, may_overlap, not_hopper
from .gpu_persistent import multiprocessors, worth_an_epilogue
from .gpu_rows import aligned, halves_of_numbers, least_rows, over_rows, sizes

_LEAST_ROWS = 512  # below, there is not a tile for each team
_STAGES = 5
_TILE, _DEPTH = 128, 64


def supports(call: Call) -> str | None:
    """Whether the kernel suits the call, or the number that does not."""
    reason = halves_of_numbers(call)
    if reason is not None:
        return reason
    return not_hopper(call) or worth_an_epilogue(call) or least_rows(call, _LEAST_ROWS)


def maps_of(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> tuple[Any, Any, Any]:
    """Tensor maps of x `[rows, K]`, weight `[N, K]` and y `[rows, N]`, all beginning on 16 bytes."""
    operand = [_TILE, _DEPTH]
    return map_of(x, operand), map_of(weight, operand), map_of(y, [_TILE, _TILE])


def bind(call: Call) -> Bound:
    """Linear by this kernel for any number of rows."""
    from .gpu_hopper_kernel import linear_alternating

    _, n, k = sizes(call)
    kind, overlap = call.attributes["activation"], may_overlap(call)

    def compute(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        target = y if y.data_ptr() % 16 == 0 else torch.empty_like(y)
        programs = min(multiprocessors(x.device.index), blocks(len(x), _TILE) * blocks(n, _TILE))
        linear_alternating[(programs,)](
            *maps_of(aligned(x), aligned(weight), target), bias, residual, len(x), programs,
            n, k, _STAGES, kind, overlap, num_warps=4, launch_pdl=overlap,
        )  # fmt: skip
        if target is not y:
            y.copy_(target)

    return over_rows(call, compute)


KERNELS = (Kernel("gluon.linear", "cuda", supports, bind, writes_out=True),)
