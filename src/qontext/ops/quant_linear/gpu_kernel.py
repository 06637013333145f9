"""Device code of QuantLinear: products of eight bits, summed in int32 or float32, and what follows them.

    v = (sums + (128 - row_zero) columns) * row_scale * scales + shift      (what is absent is left out)
    y = act(v) + residual, in floats or in eight bits: y * y_factor / y_scale

Layout: x `[rows, K]`, weight `[N, K]` contiguous, both int8 or both float8_e4m3; residual, y `[rows, N]`; scales,
columns, shift, y_factor `[N]` float32; row_scale, row_zero `[rows]` float32. A static scale of x lies in `scales`, its
zero in `shift`, with the bias. 64-bit addresses.
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..eight_bits_kernel import in_eight_bits
from ..gpu_activation_kernel import activated


@triton.jit
def finished(
    sums, scales, columns, shift, row_scale, row_zero, residual, y_factor, y_inverse, y_zero,
    row, column, rows, dtype: tl.constexpr, N: tl.constexpr, KIND: tl.constexpr,
):  # fmt: skip
    """What follows a tile of sums, as the tile of y that `dtype` holds."""
    within = column < N
    v = sums.to(tl.float32)
    if row_zero is not None:
        moved = 128.0 - tl.load(row_zero + row, row < rows, 0.0)
        v += moved[:, None] * tl.load(columns + column, within, 0.0)[None, :]
    if row_scale is not None:
        v *= tl.load(row_scale + row, row < rows, 0.0)[:, None]
    if scales is not None:
        v *= tl.load(scales + column, within, 0.0)[None, :]
    if shift is not None:
        v += tl.load(shift + column, within, 0.0)[None, :]
    v = activated(v, KIND, dtype != tl.float32, y_inverse is not None)
    if residual is not None:
        at = row.to(tl.int64)[:, None] * N + column[None, :]
        v += tl.load(residual + at, (row < rows)[:, None] & within[None, :], 0.0).to(tl.float32)
    if y_inverse is not None:
        if y_factor is not None:
            v *= tl.load(y_factor + column, within, 0.0)[None, :]
        return in_eight_bits(v, y_inverse, y_zero, dtype)
    else:
        return v.to(dtype)


@triton.jit
def finish_sums(
    sums, scales, columns, shift, row_scale, row_zero, residual, y_factor, y_inverse, y_zero, y, rows,
    N: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, KIND: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """The pass over sums `[rows, N]` that a library left; one program takes ROWS x COLUMNS of them."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < N)[None, :]
    at = row.to(tl.int64)[:, None] * N + column[None, :]
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    v = tl.load(sums + at, inside, 0.0)
    done = finished(
        v, scales, columns, shift, row_scale, row_zero, residual, y_factor, y_inverse, y_zero,
        row, column, rows, y.dtype.element_ty, N, KIND,
    )  # fmt: skip
    tl.store(y + at, done, inside)


@triton.jit
def quant_tile(
    x, weight, scales, columns, shift, row_scale, row_zero, residual, y_factor, y_inverse, y_zero, y,
    rows, tiles_of_rows,
    N: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    LINES: tl.constexpr, KIND: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program computes a tile of y. With LINES > 0 it asks for its weight before it waits for its predecessor.

    Hopper adds products of e4m3 with some 14 bits: enough for halves and eight bits. For a y in float32 operands are
    multiplied as halves, which hold every e4m3.
    """
    tile = tl.program_id(0)
    row = (tile % tiles_of_rows) * ROWS + tl.arange(0, ROWS)
    column = (tile // tiles_of_rows) * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    if OVERLAP:
        if LINES > 0:
            line = tl.minimum(128 * tl.arange(0, LINES), K - 1)
            line_at = weight + tl.minimum(column, N - 1).to(tl.int64)[:, None] * K + line[None, :]
            tl.inline_asm_elementwise(
                "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [line_at.to(tl.int64)], dtype=tl.int32,
                is_pure=False, pack=1,
            )  # fmt: skip
        gdc_wait()
        gdc_launch_dependents()
    x_at = x + row.to(tl.int64)[:, None] * K + depth[None, :]
    w_at = weight + column.to(tl.int64)[None, :] * K + depth[:, None]
    integers: tl.constexpr = x.dtype.element_ty == tl.int8
    sums = tl.zeros([ROWS, COLUMNS], tl.int32 if integers else tl.float32)
    for k in range(0, K, DEPTH):
        if K % DEPTH == 0:
            a = tl.load(x_at, (row < rows)[:, None], 0.0)
            b = tl.load(w_at, (column < N)[None, :], 0.0)
        else:
            within = k + depth < K
            a = tl.load(x_at, (row < rows)[:, None] & within[None, :], 0.0)
            b = tl.load(w_at, (column < N)[None, :] & within[:, None], 0.0)
        if not integers and y.dtype.element_ty == tl.float32:
            a, b = a.to(tl.float16), b.to(tl.float16)
        sums = tl.dot(a, b, sums, out_dtype=tl.int32 if integers else tl.float32)
        x_at += DEPTH
        w_at += DEPTH
    done = finished(
        sums, scales, columns, shift, row_scale, row_zero, residual, y_factor, y_inverse, y_zero,
        row, column, rows, y.dtype.element_ty, N, KIND,
    )  # fmt: skip
    at = row.to(tl.int64)[:, None] * N + column[None, :]
    tl.store(y + at, done, (row < rows)[:, None] & (column < N)[None, :])


@triton.jit
def quant_persistent(
    x_tiles, weight_tiles, scales, columns, shift, row_scale, row_zero, residual, y_factor, y_inverse, y_zero, y,
    rows, programs,
    N: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    GROUP: tl.constexpr, INTEGERS: tl.constexpr, KIND: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Each program computes every `programs`-th tile of y; operands come through tensor-map copies.

    x_tiles, weight_tiles: descriptors of x with blocks [ROWS, DEPTH] and of weight with blocks [COLUMNS, DEPTH]; what
    lies outside reads as zeros. Tiles are numbered in groups of GROUP rows of tiles, so that those in flight share
    operands in the second-level cache.
    """
    tiles_of_rows = tl.cdiv(rows, ROWS)
    tiles_of_columns: tl.constexpr = (N + COLUMNS - 1) // COLUMNS
    per_group: tl.constexpr = GROUP * tiles_of_columns
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    for tile in tl.range(tl.program_id(0), tiles_of_rows * tiles_of_columns, programs, flatten=True):
        first_of_group = tile // per_group * GROUP
        in_group = min(tiles_of_rows - first_of_group, GROUP)
        first_row = (first_of_group + tile % per_group % in_group) * ROWS
        first_column = tile % per_group // in_group * COLUMNS
        sums = tl.zeros([ROWS, COLUMNS], tl.int32 if INTEGERS else tl.float32)
        for k in range(0, K, DEPTH):
            a = x_tiles.load([first_row, k])
            b = weight_tiles.load([first_column, k])
            sums = tl.dot(a, b.T, sums, out_dtype=tl.int32 if INTEGERS else tl.float32)
        row = first_row + tl.arange(0, ROWS)
        column = first_column + tl.arange(0, COLUMNS)
        done = finished(
            sums, scales, columns, shift, row_scale, row_zero, residual, y_factor, y_inverse, y_zero,
            row, column, rows, y.dtype.element_ty, N, KIND,
        )  # fmt: skip
        at = row.to(tl.int64)[:, None] * N + column[None, :]
        tl.store(y + at, done, (row < rows)[:, None] & (column < N)[None, :])
