"""Linear for many rows on Hopper: two teams of warps take turns, one's result beside the other's product.

The kernel is written in Gluon (`gpu_hopper_kernel.py`), which Triton's interpreter does not run.
"""

from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import blocks, compute_capability, may_overlap
from .gpu_persistent import least_rows, multiprocessors, worth_an_epilogue
from .gpu_rows import aligned, halves_of_numbers, over_rows, sizes

_HOPPER = 90
_LEAST_ROWS = 512  # below, there is not a tile for each team
_STAGES = 5
_TILE, _DEPTH = 128, 64


def supports(call: Call) -> str | None:
    """Whether the kernel suits the call, or the number that does not."""
    reason = halves_of_numbers(call)
    if reason is not None:
        return reason
    capability = compute_capability(call)
    if capability != _HOPPER:
        return f"the device is sm_{capability}, the kernel is written for sm_{_HOPPER}"
    return worth_an_epilogue(call) or least_rows(call, _LEAST_ROWS)


def maps_of(x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> tuple[Any, Any, Any]:
    """Tensor maps of x `[rows, K]`, weight `[N, K]` and y `[rows, N]`, all beginning on 16 bytes."""
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    dtype = gl.float16 if x.dtype == torch.float16 else gl.bfloat16
    shapes = ([_TILE, _DEPTH], [_TILE, _DEPTH], [_TILE, _TILE])
    x_map, weight_map, y_map = (
        TensorDescriptor.from_tensor(tensor, shape, gl.NVMMASharedLayout.get_default_for(shape, dtype))
        for tensor, shape in zip((x, weight, y), shapes, strict=True)
    )
    return x_map, weight_map, y_map


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
