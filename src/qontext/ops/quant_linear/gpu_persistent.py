"""QuantLinear for many rows: programs that stay and take tile after tile, operands by Hopper's tensor-map copies."""

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import may_overlap
from ..linear.gpu_persistent import GROUP, LEAST_ROWS, Shape, programs_for, without_maps
from ..linear.gpu_rows import aligned, least_rows
from . import gpu_alternating
from .gpu_rows import multiples, not_float32, over_rows, ready, takes

SHAPES = (Shape(128, 256, 128, 8, 3, "quant_linear"),)


def supports(shape: Shape, call: Call) -> str | None:
    """Whether the shape suits the call, or the number that does not."""
    reason = takes(call)
    if reason is not None:
        return reason
    reason = without_maps(call)
    if reason is not None:
        return reason
    if gpu_alternating.supports(call) is None:
        return "gluon.quant_linear does the same on sm_90, in the same time or less"
    return not_float32(call) or multiples(call, 16) or least_rows(call, LEAST_ROWS)


def bind(shape: Shape, call: Call) -> Bound:
    """QuantLinear by this shape."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    from .gpu_kernel import quant_persistent

    made, kind, overlap = ready(call), call.attributes["activation"], may_overlap(call)
    weight = aligned(made.weight)

    def compute(
        x: torch.Tensor,
        row_scale: torch.Tensor | None,
        row_zero: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        programs = programs_for(shape, x, made.n)
        quant_persistent[(programs,)](
            TensorDescriptor.from_tensor(aligned(x), [shape.rows, shape.depth]),
            TensorDescriptor.from_tensor(weight, [shape.columns, shape.depth]),
            made.scales, made.columns, made.shift, row_scale, row_zero, residual, *made.tail, y, len(x), programs,
            made.n, made.k, shape.rows, shape.columns, shape.depth, GROUP, made.integers, kind, overlap,
            num_warps=shape.warps, num_stages=shape.stages, launch_pdl=overlap,
        )  # fmt: skip

    return over_rows(call, made, compute)


def kernel(shape: Shape) -> Kernel:
    """The shape as a kernel of the operator."""
    return Kernel(
        shape.name, "cuda", lambda call: supports(shape, call), lambda call: bind(shape, call), writes_out=True
    )


KERNELS = tuple(kernel(shape) for shape in SHAPES)
