"""QuantLinear for many rows: programs that stay and take tile after tile, operands by Hopper's tensor-map copies."""

from dataclasses import dataclass

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import blocks, compute_capability, may_overlap
from ..linear.gpu_persistent import multiprocessors
from ..linear.gpu_rows import aligned
from . import gpu_alternating
from .gpu_rows import least_rows, multiples, over_rows, ready, takes

_CAPABLE = (90, 100, 103)
_LEAST_ROWS = 256
_GROUP = 8
_INTERPRETED_PROGRAMS = 3


@dataclass(frozen=True)
class Shape:
    """Rows and columns of a tile of y, depth of a step along K, warps and stages."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    @property
    def name(self) -> str:
        return f"triton.quant_linear.{self.rows}x{self.columns}x{self.depth}"


SHAPES = (Shape(128, 256, 128, 8, 3),)


def supports(shape: Shape, call: Call) -> str | None:
    """Whether the shape suits the call, or the number that does not."""
    reason = takes(call)
    if reason is not None:
        return reason
    capability = compute_capability(call)
    if capability not in _CAPABLE:
        able = ", ".join(f"sm_{c}" for c in _CAPABLE)
        return f"the device is sm_{capability}, the kernel needs tensor maps and 160 KiB of shared memory: {able}"
    if gpu_alternating.supports(call) is None:
        return "gluon.quant_linear does the same on sm_90, 1.02 to 1.2 times as fast with 16,384 rows"
    return multiples(call, 16) or least_rows(call, _LEAST_ROWS)


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
        room = multiprocessors(x.device.index) if x.is_cuda else _INTERPRETED_PROGRAMS
        programs = min(room, blocks(len(x), shape.rows) * blocks(made.n, shape.columns))
        quant_persistent[(programs,)](
            TensorDescriptor.from_tensor(aligned(x), [shape.rows, shape.depth]),
            TensorDescriptor.from_tensor(weight, [shape.columns, shape.depth]),
            made.scales, made.columns, made.shift, row_scale, row_zero, residual, *made.tail, y, len(x), programs,
            made.n, made.k, shape.rows, shape.columns, shape.depth, _GROUP, made.integers, kind, overlap,
            num_warps=shape.warps, num_stages=shape.stages, launch_pdl=overlap,
        )  # fmt: skip

    return over_rows(call, made, compute)


def kernel(shape: Shape) -> Kernel:
    """The shape as a kernel of the operator."""
    return Kernel(
        shape.name, "cuda", lambda call: supports(shape, call), lambda call: bind(shape, call), writes_out=True
    )


KERNELS = tuple(kernel(shape) for shape in SHAPES)
