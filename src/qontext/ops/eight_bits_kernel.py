"""Device code of tensors in eight bits: rounding, and the scales of rows (`eight_bits.py` says what is held)."""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

ROUNDING = tl.constexpr(12582912.0)  # 1.5 * 2^23: added and taken off again it leaves whole numbers, ties to even
MOST = tl.constexpr(448.0)
LEAST_RANGE = tl.constexpr(1e-30)


@triton.jit
def in_eight_bits(v, inverse, zero, dtype: tl.constexpr):
    """v * inverse as `dtype` holds it; `zero` is the byte that stands for 0 in int8, and does not count elsewhere."""
    u = v * inverse
    if dtype == tl.int8:
        u = tl.minimum(tl.maximum(u, -512.0), 512.0)
        u = ((u + ROUNDING) - ROUNDING) + (zero - 128.0)
        return tl.minimum(tl.maximum(u, -128.0), 127.0).to(tl.int8)
    else:
        return tl.clamp(u, -MOST, MOST, propagate_nan=tl.PropagateNan.ALL).to(dtype)


@triton.jit
def scales_of_rows(v, dtype: tl.constexpr):
    """(scale, its inverse, zero), each `[rows]`, of whole rows v `[rows, columns]` in float32, zeros outside.

    The scale of a row with a NaN or an infinity is NaN.
    """
    nothing = tl.sum(v * 0.0, 1)
    if dtype == tl.int8:
        low = tl.minimum(tl.min(v, 1), 0.0)
        span = tl.maximum(tl.max(v, 1), 0.0) - low
        empty = span < LEAST_RANGE
        inverse = tl.where(empty, 0.0, tl.div_rn(tl.full(span.shape, 255.0, tl.float32), tl.where(empty, 1.0, span)))
        scale = tl.where(empty, 1.0, tl.div_rn(span, tl.full(span.shape, 255.0, tl.float32)))
        zero = -low * inverse
        zero = (zero + ROUNDING) - ROUNDING
    else:
        largest = tl.max(tl.abs(v), 1)
        empty = largest < LEAST_RANGE
        most = tl.full(largest.shape, MOST, tl.float32)
        inverse = tl.where(empty, 0.0, tl.div_rn(most, tl.where(empty, 1.0, largest)))
        scale = tl.where(empty, 1.0, tl.div_rn(largest, most))
        zero = tl.zeros_like(scale)
    return scale + nothing, inverse, zero


@triton.jit
def store_in_eight_bits(
    v, y8, row_scale, row_zero, factor, inverse, zero, at, row, column, rows, inside, WIDTH: tl.constexpr
):
    """Whole rows v in eight bits, with static `inverse` and `zero`, or (None) with those of each row, stored too."""
    dtype: tl.constexpr = y8.dtype.element_ty
    if factor is not None:
        v *= tl.load(factor + column, column < WIDTH, 0.0)[None, :]
    if inverse is not None:
        tl.store(y8 + at, in_eight_bits(v, inverse, zero, dtype), inside)
    else:
        scale, by, middle = scales_of_rows(v, dtype)
        tl.store(y8 + at, in_eight_bits(v, by[:, None], middle[:, None], dtype), inside)
        tl.store(row_scale + row, scale, row < rows)
        if row_zero is not None:
            tl.store(row_zero + row, middle, row < rows)


@triton.jit
def hold_rows(
    x, factor, y8, row_scale, row_zero, inverse, scale, zero, rows,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program turns ROWS rows of x into eight bits, by static numbers or (None) by those of each row.

    The scale of every row is stored even when it is static: it is NaN where the row holds a NaN or an infinity.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
    at = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    v = tl.load(x + at, inside, 0.0).to(tl.float32)
    if inverse is None:
        store_in_eight_bits(v, y8, row_scale, row_zero, factor, None, None, at, row, column, rows, inside, WIDTH)
    else:
        nothing = tl.sum(v * 0.0, 1)
        store_in_eight_bits(v, y8, None, None, factor, inverse, zero, at, row, column, rows, inside, WIDTH)
        tl.store(row_scale + row, scale + nothing, row < rows)
        if row_zero is not None:
            tl.store(row_zero + row, zero + nothing, row < rows)
