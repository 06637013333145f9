"""Device code that moves rows: padding removed and put back, the first row of each sequence, lengths counted. 64-bit
addresses.

A place that is not one of the source's rows gives a row of zeros, and nothing outside the source is read.
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def copy_rows(x, y, source, row, rows, source_rows, WIDTH: tl.constexpr, COLUMNS: tl.constexpr):
    """y[row] = x[source] for a tile of rows, in column block `program_id(1)`; zeros where source is no row of x."""
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
    known = inside & ((source >= 0) & (source < source_rows))[:, None]
    v = tl.load(x + source.to(tl.int64)[:, None] * WIDTH + column[None, :], known, 0)
    tl.store(y + row.to(tl.int64)[:, None] * WIDTH + column[None, :], v, inside)


@triton.jit
def gather_rows(
    x,
    index,
    y,
    rows,
    source_rows,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """y[i] = x[index[i]]: x `[source_rows, WIDTH]`, index `[rows]` int64, y `[rows, WIDTH]`."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    copy_rows(x, y, tl.load(index + row, row < rows, -1), row, rows, source_rows, WIDTH, COLUMNS)


@triton.jit
def spread_rows(
    x, index, y, rows, source_rows, STEPS: tl.constexpr,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """y[index[i]] = x[i] and zeros elsewhere: x `[source_rows, WIDTH]`, y `[rows, WIDTH]`.

    index `[source_rows]` int64 ascends, so each row of y finds its source by bisection (STEPS > log2 of source_rows):
    every row is written once, and nothing needs to be zeroed beforehand.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    low = tl.zeros([ROWS], tl.int32)
    high = low + source_rows
    for _ in range(STEPS):
        middle = (low + high) // 2
        smaller = tl.load(index + middle, middle < high, 0) < row
        low, high = tl.where((middle < high) & smaller, middle + 1, low), tl.where(smaller, high, middle)
    found = tl.load(index + low, low < source_rows, -1) == row
    copy_rows(x, y, tl.where(found, low, -1), row, rows, source_rows, WIDTH, COLUMNS)


@triton.jit
def first_rows(
    x, cu_seqlens, y, rows, source_rows, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """y[b] = x[cu_seqlens[b]], zeros for an empty sequence: x `[source_rows, WIDTH]`, y `[rows, WIDTH]`."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    begin = tl.load(cu_seqlens + row, row < rows, 0)
    end = tl.load(cu_seqlens + row + 1, row < rows, 0)
    copy_rows(x, y, tl.where(begin < end, begin, -1), row, rows, source_rows, WIDTH, COLUMNS)


@triton.jit
def count_rows(mask, lengths, length, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """lengths[b] = how many of the `length` numbers of row b of the mask are not zero."""
    start = tl.program_id(0).to(tl.int64) * length
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    found = tl.zeros([BLOCK], tl.int32)
    for first in range(0, length, BLOCK):
        at = first + tl.arange(0, BLOCK)
        found += (tl.load(mask + start + at, at < length, 0) != 0).to(tl.int32)
    tl.store(lengths + tl.program_id(0), tl.sum(found, 0))
