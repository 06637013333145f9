"""Device code of GroupLinear: weights of four bits become floats on their way to the matrix units.

One program computes ROWS rows by COLUMNS columns of y and runs along K in steps of DEPTH, which divides the group. A
byte holds two values that follow each other along K, so a step is two products: even columns of x by low halves, odd
ones by high halves. Scales are applied to the weights, whose sums stay in float32.
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..gpu_activation_kernel import activated


@triton.jit
def group_linear(
    x, weight, scale, zero, bias, residual, y, rows,
    N: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr, KIND: tl.constexpr, PRECISION: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One tile of y; the tiles of rows that share columns follow each other."""
    tiles = tl.cdiv(rows, ROWS)
    row = tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) // tiles * COLUMNS + tl.arange(0, COLUMNS)
    there = column < N
    half = tl.arange(0, DEPTH // 2)
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    from_x = x + row.to(tl.int64)[:, None] * K + 2 * half[None, :]
    from_weight = weight + column.to(tl.int64)[:, None] * (K // 2) + half[None, :]
    groups: tl.constexpr = K // GROUP
    acc = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, K, DEPTH):
        group = column * groups + first // GROUP
        by = tl.load(scale + group, there, 0.0)
        middle = tl.load(zero + group, there, 0).to(tl.float32)
        both = tl.load(from_weight + first // 2, there[:, None], 0)
        low = ((both & 15).to(tl.float32) - middle[:, None]) * by[:, None]
        high = ((both >> 4).to(tl.float32) - middle[:, None]) * by[:, None]
        even = tl.load(from_x + first, (row < rows)[:, None], 0.0)
        odd = tl.load(from_x + first + 1, (row < rows)[:, None], 0.0)
        acc = tl.dot(even, tl.trans(low.to(even.dtype)), acc, input_precision=PRECISION)
        acc = tl.dot(odd, tl.trans(high.to(odd.dtype)), acc, input_precision=PRECISION)
    inside = (row < rows)[:, None] & there[None, :]
    at = row.to(tl.int64)[:, None] * N + column[None, :]
    if bias is not None:
        acc += tl.load(bias + column, there, 0.0).to(tl.float32)[None, :]
    acc = activated(acc, KIND, y.dtype.element_ty != tl.float32)
    if residual is not None:
        acc += tl.load(residual + at, inside, 0.0).to(tl.float32)
    tl.store(y + at, acc.to(y.dtype.element_ty), inside)
