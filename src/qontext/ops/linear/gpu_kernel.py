"""Device code of Linear: y = act(x W^T + bias) + residual, accumulation in float32, without TF32.

Layout: x `[rows, K]`, weight `[N, K]`, residual and y `[rows, N]` contiguous, bias `[N]`; K and N multiples of 8, so
that rows begin on 16 bytes. What is absent is None. 64-bit addresses.
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..gpu_activation_kernel import activated


@triton.jit
def store_result(acc, bias, residual, y, row, column, rows, N: tl.constexpr, KIND: tl.constexpr):
    """Bias, activation and residual on an accumulator `[row, column]`, stored where it is inside y."""
    inside = (row < rows)[:, None] & (column < N)[None, :]
    at = row.to(tl.int64)[:, None] * N + column[None, :]
    if bias is not None:
        acc += tl.load(bias + column, column < N, 0.0).to(tl.float32)[None, :]
    acc = activated(acc, KIND, y.dtype.element_ty != tl.float32)
    if residual is not None:
        acc += tl.load(residual + at, inside, 0.0).to(tl.float32)
    tl.store(y + at, acc.to(y.dtype.element_ty), inside)


@triton.jit
def prefetch_weight(weight, column, first, last, N: tl.constexpr, K: tl.constexpr, LINES: tl.constexpr):
    """Asks for the lines of 128 bytes of weight[column, first:last] to be brought to the second-level cache."""
    line = tl.minimum(first + 64 * tl.arange(0, LINES), last - 1)
    at = weight + tl.minimum(column, N - 1).to(tl.int64)[:, None] * K + line[None, :]
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [at.to(tl.int64)], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def linear_tile(
    x, weight, bias, residual, y, rows, tiles_of_rows,
    N: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    PARTS: tl.constexpr, SPAN: tl.constexpr, LINES: tl.constexpr, KIND: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program computes a tile of y over SPAN of K.

    PARTS: 1, or how many programs share K: y is then `[PARTS, rows, N]` float32 of the products alone, and its reader
    adds them up. With LINES > 0 the weight, which has to be a constant, is asked for before the kernel waits for its
    predecessor.
    """
    tile = tl.program_id(0)
    part = tl.program_id(1)
    row = (tile % tiles_of_rows) * ROWS + tl.arange(0, ROWS)
    column = (tile // tiles_of_rows) * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    first = part * SPAN
    if OVERLAP:
        if LINES > 0:
            prefetch_weight(weight, column, first, tl.minimum(first + SPAN, K), N, K, LINES)
        gdc_wait()
        gdc_launch_dependents()
    x_at = x + row.to(tl.int64)[:, None] * K + (first + depth)[None, :]
    w_at = weight + column.to(tl.int64)[None, :] * K + (first + depth)[:, None]
    acc = tl.zeros([ROWS, COLUMNS], tl.float32)
    for k in range(0, SPAN, DEPTH):
        if K % SPAN == 0 and SPAN % DEPTH == 0:
            a = tl.load(x_at, (row < rows)[:, None], 0.0)
            if N % COLUMNS == 0:
                b = tl.load(w_at)
            else:
                b = tl.load(w_at, (column < N)[None, :], 0.0)
        else:
            within = (k + depth < SPAN) & (first + k + depth < K)
            a = tl.load(x_at, (row < rows)[:, None] & within[None, :], 0.0)
            b = tl.load(w_at, (column < N)[None, :] & within[:, None], 0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")
        x_at += DEPTH
        w_at += DEPTH
    if PARTS == 1:
        store_result(acc, bias, residual, y, row, column, rows, N, KIND)
    else:
        inside = (row < rows)[:, None] & (column < N)[None, :]
        at = (part.to(tl.int64) * rows + row)[:, None] * N + column[None, :]
        tl.store(y + at, acc, inside)


@triton.jit
def linear_persistent(
    x_tiles, weight_tiles, bias, residual, y, rows, programs,
    N: tl.constexpr, K: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    GROUP: tl.constexpr, KIND: tl.constexpr, OVERLAP: tl.constexpr,
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
        acc = tl.zeros([ROWS, COLUMNS], tl.float32)
        for k in range(0, K, DEPTH):
            a = x_tiles.load([first_row, k])
            b = weight_tiles.load([first_column, k])
            acc = tl.dot(a, b.T, acc)
        row = first_row + tl.arange(0, ROWS)
        column = first_column + tl.arange(0, COLUMNS)
        store_result(acc, bias, residual, y, row, column, rows, N, KIND)
