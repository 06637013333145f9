"""Device code of the norms over the last axis.

    v = x + skip + x_bias                              (what is absent is left out), stored as `total` if wanted
    y = (v - mean) / sqrt(variance + epsilon) * weight + bias     (CENTRED: LayerNorm)
    y = v / sqrt(mean(v^2) + epsilon) * weight + bias             (RMSNorm)

Layout: x, skip, y, total `[rows, WIDTH]` contiguous; weight, bias, x_bias `[WIDTH]`. x may come in PARTS that are to
be added up, `[PARTS, rows, WIDTH]`. Statistics in float32 from
deviations (never from sums of squares), 64-bit addresses, each number read once and written once where a row fits a
tile; wider rows are read twice. y may lie where x or skip lie.
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from .eight_bits_kernel import store_in_eight_bits


@triton.jit
def normalise(v, inside, weight, bias, column, epsilon, WIDTH: tl.constexpr, CENTRED: tl.constexpr):
    """The norm of a tile `[rows, columns]` of whole rows in float32, zeros outside; column `[columns]`."""
    if CENTRED:
        mean = tl.sum(v, 1) / WIDTH
        v = tl.where(inside, v - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(v * v, 1) / WIDTH + epsilon)
    return affine(v * scale[:, None], weight, bias, column, WIDTH)


@triton.jit
def affine(v, weight, bias, column, WIDTH: tl.constexpr):
    """v * weight + bias for a tile `[rows, columns]`; either may be None."""
    if weight is not None:
        v = v * tl.load(weight + column, column < WIDTH, 0.0).to(tl.float32)[None, :]
    if bias is not None:
        v = v + tl.load(bias + column, column < WIDTH, 0.0).to(tl.float32)[None, :]
    return v


@triton.jit
def summed(x, skip, x_bias, at, column, inside, rows, WIDTH: tl.constexpr, PARTS: tl.constexpr):
    """x + skip + x_bias at the places `at`, in float32, zeros outside."""
    v = tl.load(x + at, inside, 0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        v += tl.load(x + part * tl.cast(rows, tl.int64) * WIDTH + at, inside, 0.0).to(tl.float32)
    if skip is not None:
        v += tl.load(skip + at, inside, 0.0).to(tl.float32)
    if x_bias is not None:
        v += tl.load(x_bias + column, column < WIDTH, 0.0).to(tl.float32)[None, :]
    return v


@triton.jit
def norm_rows(
    x, skip, x_bias, weight, bias, y, total, y8, row_scale, row_zero, y_factor, y_inverse, y_zero, rows, epsilon,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, PARTS: tl.constexpr, CENTRED: tl.constexpr,
    EARLY: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program normalises ROWS rows that fit a tile of COLUMNS >= WIDTH.

    y8: where y goes in eight bits too; with y_inverse, the inverse of its static scale, and y_zero, or with row_scale
    and row_zero, where those of each row go.
    EARLY: weight, bias and x_bias are constants, so they are read before the kernel waits for its predecessor.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    within = column < WIDTH
    inside = (row < rows)[:, None] & within[None, :]
    at = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    if OVERLAP:
        if not EARLY:
            gdc_wait()
        gdc_launch_dependents()
    if x_bias is not None:
        before = tl.load(x_bias + column, within, 0.0).to(tl.float32)
    if weight is not None:
        factor = tl.load(weight + column, within, 0.0).to(tl.float32)
    if bias is not None:
        shift = tl.load(bias + column, within, 0.0).to(tl.float32)
    if OVERLAP and EARLY:
        gdc_wait()
    v = summed(x, skip, None, at, column, inside, rows, WIDTH, PARTS)
    if x_bias is not None:
        v += before[None, :]
    if total is not None:
        tl.store(total + at, v.to(total.dtype.element_ty), inside)
    z = normalise(v, inside, None, None, column, epsilon, WIDTH, CENTRED)
    if weight is not None:
        z *= factor[None, :]
    if bias is not None:
        z += shift[None, :]
    tl.store(y + at, z.to(y.dtype.element_ty), inside)
    if y8 is not None:
        z = tl.where(inside, z, 0.0)
        store_in_eight_bits(
            z, y8, row_scale, row_zero, y_factor, y_inverse, y_zero, at, row, column, rows, inside, WIDTH
        )


@triton.jit
def norm_wide_rows(
    x, skip, x_bias, weight, bias, y, total, rows, epsilon,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, PARTS: tl.constexpr, CENTRED: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program normalises one row in two sweeps; the moments of its pieces are merged as Chan et al. do."""
    start = tl.program_id(0).to(tl.int64) * WIDTH
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    mean = tl.zeros([1], tl.float32)
    moment = tl.zeros([1], tl.float32)
    for first in range(0, WIDTH, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = (column < WIDTH)[None, :]
        at = start + column[None, :]
        v = summed(x, skip, x_bias, at, column, inside, rows, WIDTH, PARTS)
        if total is not None:
            tl.store(total + at, v.to(total.dtype.element_ty), inside)
        if CENTRED:
            count = tl.minimum(WIDTH - first, COLUMNS).to(tl.float32)
            middle = tl.sum(v, 1) / count
            v = tl.where(inside, v - middle[:, None], 0.0)
            apart = middle - mean
            moment += apart * apart * (first * count / (first + count))
            mean += apart * (count / (first + count))
        moment += tl.sum(v * v, 1)
    scale = tl.rsqrt(moment / WIDTH + epsilon)
    for first in range(0, WIDTH, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = (column < WIDTH)[None, :]
        at = start + column[None, :]
        v = summed(x, skip, x_bias, at, column, inside, rows, WIDTH, PARTS)
        z = affine((v - mean[:, None]) * scale[:, None], weight, bias, column, WIDTH)
        tl.store(y + at, z.to(y.dtype.element_ty), inside)
