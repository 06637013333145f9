"""Binding the norms over the last axis to a width: LayerNorm, SkipLayerNorm and RMSNorm share it.

Limits: none on rows or width; rows wider than `WIDEST_TILE` are read twice.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from .call import Call, Operand
from .gpu_launch import blocks, may_overlap, power_of_2, takes_floats
from .kernel_checks import last_axis, last_axis_known

WIDEST_TILE = 16384
_WIDE_STEP = 4096
# Rows from which one program takes several: fewer leave multiprocessors idle.
_MANY_ROWS = 2048
# No result in eight bits: y8, row_scale, row_zero, y_factor, y_inverse and y_zero of the kernel.
NOT_HELD = (None,) * 6


class Norm(Protocol):
    """Fills y, and total where it is given; x is `[..., width]`, or parts that are added up `[parts, rows, width]`.

    eight: the kernel's operands of a result in eight bits, which rows wider than `WIDEST_TILE` have none of.
    """

    def __call__(
        self,
        x: torch.Tensor,
        skip: torch.Tensor | None,
        x_bias: torch.Tensor | None,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        y: torch.Tensor,
        total: torch.Tensor | None,
        parts: int = 1,
        eight: Sequence[torch.Tensor | float | None] = NOT_HELD,
    ) -> None: ...


def norm_supports(call: Call) -> str | None:
    """Triton is here, one float dtype, and rows whose width is a number other than 0."""
    x = call.inputs[0]
    assert x is not None
    reason = takes_floats(call) or last_axis_known(x, "x")
    return reason or ("its first input has rows of 0 elements" if last_axis(x) == 0 else None)


def rows_per_program(columns: int, rows: int) -> int:
    """How many rows a program takes: as many as fill a tile of 2048, one while rows are few."""
    return max(1, 2048 // columns) if rows >= _MANY_ROWS else 1


def warps_for(elements: int) -> int:
    """Warps for a tile of so many elements: at least 4, and about 16 elements a thread."""
    return min(max(elements // 512, 4), 16)


def _ready(operand: Operand) -> bool:
    """The operand is a constant that no kernel in front has to copy."""
    return operand.constant is not None and operand.constant.is_contiguous()


def bind_norm(call: Call, width: int, epsilon: float, centred: bool = True) -> Norm:
    """A function that normalises rows of `width` contiguous numbers; `centred` is False for RMSNorm."""
    from .gpu_norm_kernel import norm_rows, norm_wide_rows

    overlap = may_overlap(call)
    columns = power_of_2(width)
    # The vectors, which have one axis where everything else has the rows' too.
    early = all(o is None or o.rank != 1 or _ready(o) for o in call.inputs)

    def run(
        x: torch.Tensor,
        skip: torch.Tensor | None,
        x_bias: torch.Tensor | None,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        y: torch.Tensor,
        total: torch.Tensor | None,
        parts: int = 1,
        eight: Sequence[torch.Tensor | float | None] = NOT_HELD,
    ) -> None:
        rows = y.numel() // width
        if rows == 0:
            return
        operands = (x, skip, x_bias, weight, bias, y, total)
        if columns > WIDEST_TILE:
            norm_wide_rows[(rows,)](
                *operands, rows, epsilon, width, _WIDE_STEP, parts, centred, overlap, num_warps=8, launch_pdl=overlap
            )
            return
        each = rows_per_program(columns, rows)
        norm_rows[(blocks(rows, each),)](
            *operands, *eight, rows, epsilon, width, columns, each, parts, centred, early, overlap,
            num_warps=warps_for(columns * each), launch_pdl=overlap,
        )  # fmt: skip

    return run
