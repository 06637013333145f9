"""Binding the pass of bias, activation and residual: Gelu, and Linear where the library's product has no epilogue."""

from collections.abc import Callable

import torch

from .call import Call
from .gpu_launch import blocks, may_overlap, power_of_2

_COLUMNS = 1024
# Numbers and warps of a program: small tiles while there are few numbers, so that every multiprocessor has work.
_TILE, _WARPS = 8192, 8
_SMALL_TILE, _SMALL_WARPS, _SMALL = 1024, 4, 2 << 20

# (x, bias, residual, y): fills y, which may be x itself.
Finish = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor], None]


def bind_finish(call: Call, width: int, kind: str) -> Finish:
    """A function that computes y = act(x + bias) + residual over contiguous rows of `width` numbers.

    kind: "none", "relu", "gelu_erf", "gelu_tanh" or "silu".
    """
    from .gpu_activation_kernel import finish

    overlap, columns = may_overlap(call), min(power_of_2(width), _COLUMNS)

    def run(x: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None, y: torch.Tensor) -> None:
        rows = x.numel() // width
        if rows == 0:
            return
        tile, warps = (_SMALL_TILE, _SMALL_WARPS) if x.numel() <= _SMALL else (_TILE, _WARPS)
        each = tile // columns
        finish[(blocks(rows, each), blocks(width, columns))](
            x, bias, residual, y, rows, width, columns, each, kind, overlap, num_warps=warps, launch_pdl=overlap
        )

    return run
