"""Linear for many rows on Hopper: two teams of warps take turns, one's result beside the other's product.

The kernel is written in Gluon (`gpu_hopper_kernel.py`), which Triton's interpreter does not run.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import blocks, compute_capability, may_overlap
from ..native_kernel import even_or_none
from .gpu_persistent import least_rows, multiprocessors, worth_an_epilogue
from .gpu_tiles import halves_of_numbers, sizes

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

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, weight, bias, residual = (even_or_none(t) for t in inputs[:4])
        assert x is not None
        assert weight is not None
        y = x.new_empty((*x.shape[:-1], n)) if out is None else out[0]
        rows = x.numel() // k
        if rows == 0:
            return y
        # Tensor maps begin on 16 bytes; what torch and the arena hand out does, a slice may not.
        x, weight = (t if t.data_ptr() % 16 == 0 else t.clone() for t in (x, weight))
        target = y if y.data_ptr() % 16 == 0 else torch.empty_like(y)
        programs = min(multiprocessors(x.device.index), blocks(rows, _TILE) * blocks(n, _TILE))
        linear_alternating[(programs,)](
            *maps_of(x.view(rows, k), weight, target.view(rows, n)), bias, residual, rows, programs,
            n, k, _STAGES, kind, overlap, num_warps=4, launch_pdl=overlap,
        )  # fmt: skip
        return y if target is y else y.copy_(target)

    return run


KERNELS = (Kernel("gluon.linear", "cuda", supports, bind, writes_out=True),)
