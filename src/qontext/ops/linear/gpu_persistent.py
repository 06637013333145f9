"""Linear for many rows: programs that stay and take tile after tile, operands by Hopper's tensor-map copies.

Worth its while against the vendor's library where the activation (exact GELU above all) or the residual spares a pass
over the result, with some hundred rows. The planner times it against the others.
"""

import functools
from dataclasses import dataclass

import torch

from ..call import Call, Kernel
from ..gpu_launch import blocks, compute_capability, may_overlap
from .gpu_rows import Compute, aligned, halves_of_numbers, least_rows, over_rows, sizes

_CAPABLE = (90, 100, 103)
LEAST_ROWS = 256
GROUP = 8
_INTERPRETED_PROGRAMS = 3


@dataclass(frozen=True)
class Shape:
    """Rows and columns of a tile of y, depth of a step along K, warps and stages; what the product is called."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    product: str = "linear"

    @property
    def name(self) -> str:
        return f"triton.{self.product}.{self.rows}x{self.columns}x{self.depth}"


# Larger tiles gain with some thousand rows, where the kernel for Hopper (`gpu_alternating.py`) beats them all.
SHAPES = (Shape(128, 128, 64, 8, 4),)


@functools.cache
def multiprocessors(index: int | None) -> int:
    return torch.cuda.get_device_properties(index or 0).multi_processor_count


def supports(shape: Shape, call: Call) -> str | None:
    """Whether the shape suits the call, or the number that does not."""
    reason = halves_of_numbers(call)
    if reason is not None:
        return reason
    return without_maps(call) or worth_an_epilogue(call) or least_rows(call, LEAST_ROWS)


def without_maps(call: Call) -> str | None:
    """None on a device with what programs that stay need, else what that is."""
    capability = compute_capability(call)
    if capability in _CAPABLE:
        return None
    able = ", ".join(f"sm_{c}" for c in _CAPABLE)
    return f"the device is sm_{capability}, the kernel needs tensor maps and 160 KiB of shared memory: {able}"


def programs_for(shape: Shape, x: torch.Tensor, n: int) -> int:
    """Programs that stay: one a multiprocessor, no more than there are tiles of y `[rows of x, n]`."""
    room = multiprocessors(x.device.index) if x.is_cuda else _INTERPRETED_PROGRAMS
    return min(room, blocks(len(x), shape.rows) * blocks(n, shape.columns))


def worth_an_epilogue(call: Call) -> str | None:
    """The vendor's product is faster; what may make up for it is a pass over the result that is spared."""
    if call.attributes["activation"] != "none" or call.inputs[3] is not None:
        return None
    return "there is neither an activation nor a residual, so it would spare 0 passes over the result"


def bind_rows(shape: Shape, call: Call) -> Compute:
    """Linear over rows by this shape."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    from .gpu_kernel import linear_persistent

    _, n, k = sizes(call)
    kind, overlap = call.attributes["activation"], may_overlap(call)

    def compute(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        programs = programs_for(shape, x, n)
        linear_persistent[(programs,)](
            TensorDescriptor.from_tensor(aligned(x), [shape.rows, shape.depth]),
            TensorDescriptor.from_tensor(aligned(weight), [shape.columns, shape.depth]),
            bias, residual, y, len(x), programs,
            n, k, shape.rows, shape.columns, shape.depth, GROUP, kind, overlap,
            num_warps=shape.warps, num_stages=shape.stages, launch_pdl=overlap,
        )  # fmt: skip

    return compute


def kernel(shape: Shape) -> Kernel:
    """The shape as a kernel of the operator."""
    return Kernel(
        shape.name,
        "cuda",
        lambda call: supports(shape, call),
        lambda call: over_rows(call, bind_rows(shape, call)),
        writes_out=True,
    )


KERNELS = tuple(kernel(shape) for shape in SHAPES)
