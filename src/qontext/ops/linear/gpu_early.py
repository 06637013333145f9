"""Linear for few rows on Hopper: programs that fetch their whole weight before the kernel in front has ended.

A shape either covers all of K, or leaves K in parts that the reader of the result adds up (`gpu_parts.py`). The kernel
is written in Gluon (`gpu_early_kernel.py`), which Triton's interpreter does not run.
"""

from dataclasses import dataclass
from typing import Any

import torch

from ..call import Call, Kernel
from ..gluon_maps import map_of
from ..gpu_launch import blocks, may_overlap, not_hopper
from ..native_kernel import even
from .gpu_rows import Compute, aligned, halves_of_numbers, most_rows, over_rows, sizes

_DEPTH = 64
_SHARED = 220 << 10  # bytes of shared memory that a program may take
_MOST_ROWS = 256


@dataclass(frozen=True)
class Early:
    """Rows and columns of a tile of y, the span of K a program covers (0: all), and buffers for x in steps of 64."""

    rows: int
    columns: int
    span: int = 0
    ring: int = 4

    @property
    def name(self) -> str:
        return f"gluon.linear_early.{self.rows}x{self.columns}" + (f"x{self.span}" if self.span else "")

    def covers(self, k: int) -> int:
        """The span of K, a multiple of 64."""
        return self.span or blocks(k, _DEPTH) * _DEPTH

    def parts(self, k: int) -> int:
        """How many programs share K."""
        return blocks(k, self.covers(k))

    def shared(self, k: int) -> int:
        """Bytes of shared memory for x and the weight."""
        return (min(self.ring * _DEPTH, self.covers(k)) * self.rows + self.covers(k) * self.columns) * 2


SHAPES = (Early(64, 64),)


def supports(shape: Early, call: Call) -> str | None:
    """Whether the shape suits the call, or the number that does not."""
    reason = halves_of_numbers(call)
    if reason is not None:
        return reason
    reason = not_hopper(call)
    if reason is not None:
        return reason
    weight = call.inputs[1]
    assert weight is not None
    if weight.constant is None:
        return "the weight is computed at run time, the kernel reads it before its predecessor has ended"
    if call.inputs[3] is not None:
        return "there is 1 residual, the kernel adds none"
    reason = most_rows(call, _MOST_ROWS)
    if reason is not None:
        return reason
    _, _, k = sizes(call)
    if shape.shared(k) > _SHARED:
        return f"K is {k}: {shape.shared(k)} bytes of shared memory, a program may take {_SHARED}"
    return None


def weight_map(weight: torch.Tensor, columns: int) -> Any:
    """The tensor map of a weight `[N, K]` read in blocks `[columns, 64]`."""
    return map_of(weight, [columns, _DEPTH])


def bind_rows(shape: Early, call: Call) -> Compute:
    """Fills y `[rows, N]`, or `[parts, rows, N]` float32 of the products alone where the shape leaves K in parts."""
    from .gpu_early_kernel import linear_early

    _, n, k = sizes(call)
    # A copy that a kernel in front makes would be read too early, so it is made here where one is needed.
    assert call.inputs[1] is not None
    assert call.inputs[1].constant is not None
    held = aligned(even(call.inputs[1].constant.detach()))
    kind, overlap, span, parts = call.attributes["activation"], may_overlap(call), shape.covers(k), shape.parts(k)

    def compute(
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        tiles_of_rows = blocks(len(x), shape.rows)
        linear_early[(tiles_of_rows * blocks(n, shape.columns), parts)](
            aligned(x), weight_map(held, shape.columns), bias, y, len(x), tiles_of_rows,
            n, k, shape.rows, shape.columns, span, min(shape.ring, span // _DEPTH), parts, kind, overlap,
            num_warps=shape.rows // 16, launch_pdl=overlap,
        )  # fmt: skip

    return compute


def kernel(shape: Early) -> Kernel:
    """The shape as a kernel of the operator."""
    return Kernel(
        shape.name,
        "cuda",
        lambda call: supports(shape, call),
        lambda call: over_rows(call, bind_rows(shape, call)),
        writes_out=True,
    )


KERNELS = tuple(kernel(shape) for shape in SHAPES)
