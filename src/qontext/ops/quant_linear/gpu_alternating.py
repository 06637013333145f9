"""QuantLinear for many rows on Hopper: two teams of warps take turns, one's result beside the other's product.

The kernel is written in Gluon (`gpu_hopper_kernel.py`), which Triton's interpreter does not run.
"""

from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import blocks, compute_capability, may_overlap
from ..linear.gpu_persistent import multiprocessors
from ..linear.gpu_rows import aligned
from .gpu_rows import least_rows, multiples, over_rows, ready, takes

_HOPPER = 90
_LEAST_ROWS = 256  # below, there is not a tile for each team
_TILE, _DEPTH = 128, 128
_STAGES = 5


def supports(call: Call) -> str | None:
    """Whether the kernel suits the call, or the number that does not."""
    reason = takes(call)
    if reason is not None:
        return reason
    capability = compute_capability(call)
    if capability != _HOPPER:
        return f"the device is sm_{capability}, the kernel is written for sm_{_HOPPER}"
    y = call.outputs[0]
    if y is not None and y.dtype == "float32":
        return "the result is float32, the kernel gives halves and eight bits"
    return multiples(call, 16) or least_rows(call, _LEAST_ROWS)


def map_of(tensor: torch.Tensor, shape: list[int]) -> Any:
    """The tensor map of rows that begin on 16 bytes, in blocks of `shape`."""
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    names = {
        torch.float16: gl.float16,
        torch.bfloat16: gl.bfloat16,
        torch.float8_e4m3fn: gl.float8e4nv,
        torch.int8: gl.int8,
    }
    layout = gl.NVMMASharedLayout.get_default_for(shape, names[tensor.dtype])
    return TensorDescriptor.from_tensor(tensor, shape, layout)


def bind(call: Call) -> Bound:
    """QuantLinear by this kernel for any number of rows."""
    from .gpu_hopper_kernel import quant_alternating

    made, kind, overlap = ready(call), call.attributes["activation"], may_overlap(call)
    weight = aligned(made.weight)
    operand, block = [_TILE, _DEPTH], [_TILE, _TILE]

    def compute(
        x: torch.Tensor,
        row_scale: torch.Tensor | None,
        row_zero: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        target = y if y.data_ptr() % 16 == 0 else torch.empty_like(y)
        programs = min(multiprocessors(x.device.index), blocks(len(x), _TILE) * blocks(made.n, _TILE))
        quant_alternating[(programs,)](
            map_of(aligned(x), operand), map_of(weight, operand), map_of(target, block),
            made.scales, made.columns, made.shift, row_scale, row_zero, residual, *made.tail, len(x), programs,
            made.n, made.k, _STAGES, kind, overlap, num_warps=4, launch_pdl=overlap,
        )  # fmt: skip
        if target is not y:
            y.copy_(target)

    return over_rows(call, made, compute)


KERNELS = (Kernel("gluon.quant_linear", "cuda", supports, bind, writes_out=True),)
