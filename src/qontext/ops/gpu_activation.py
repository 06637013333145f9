"""Binding the pass of bias, activation and residual: Gelu, and Linear where the library's product has no epilogue."""

from collections.abc import Callable

import torch

from .call import Call
from .gpu_launch import blocks, may_overlap

_BLOCK, _WARPS = 2048, 4
_SMALL, _SMALL_BLOCK = 1 << 19, 1024

# (x, bias, residual, y): fills y, which may be x itself.
Finish = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor], None]


def bind_finish(call: Call, width: int, kind: str) -> Finish:
    """A function that computes y = act(x + bias) + residual over contiguous rows of `width` numbers.

    kind: "none", "relu", "gelu_erf", "gelu_tanh" or "silu".
    """
    from .gpu_activation_kernel import finish

    overlap = may_overlap(call)

    def run(x: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None, y: torch.Tensor) -> None:
        count = x.numel()
        if count == 0:
            return
        block = _SMALL_BLOCK if count <= _SMALL else _BLOCK
        finish[(blocks(count, block),)](
            x, bias, residual, y, count, width, block, kind, overlap, num_warps=_WARPS, launch_pdl=overlap
        )

    return run
