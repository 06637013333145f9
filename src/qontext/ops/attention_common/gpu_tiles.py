"""Device code that all attention kernels share: which rows a program has, which keys they see, loads and the softmax.

Layout: operands are pointers with strides in elements, their last axis contiguous; nothing is transposed or copied.
Rows beyond a sequence and columns beyond a head are never read or written, and addresses are 64-bit where they may be
large.
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..eight_bits_kernel import in_eight_bits


@triton.jit
def sequence(b, bounds, length):
    """The first row and the number of rows of sequence b: from `bounds` `[B+1]` when packed, else (0, length)."""
    if bounds is None:
        first = 0
        count = length
    else:
        first = tl.load(bounds + b)
        count = tl.load(bounds + b + 1) - first
    return first, count


@triton.jit
def counted(b, counts, otherwise):
    """The number that `counts` `[B]` (or None) holds for sequence b."""
    if counts is None:
        return otherwise
    else:
        return tl.load(counts + b).to(tl.int32)


@triton.jit
def tile_of(tiles, bounds, rows, HEADS: tl.constexpr, BM: tl.constexpr, OVERLAP: tl.constexpr):
    """What a program computes: sequence, head, first query, and the first row and number of rows of the sequence.

    The last rows of causal attention see most keys: they come first. Waits for the kernel before (OVERLAP).
    """
    program = tl.program_id(0)
    b = (program // tiles // HEADS).to(tl.int64)
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    first, count = sequence(b, bounds, rows)
    return b, program // tiles % HEADS, (tiles - 1 - program % tiles) * BM, first, count


@triton.jit
def keys_of(b, bounds, counts, prefixes, keys, q_count, offset, LAST_TO_LAST: tl.constexpr):
    """First row and number of the keys of sequence b, those that count, the prefix, and the place of the first query:
    `offset`, or such that the last query stands at the last key that counts."""
    first, count = sequence(b, bounds, keys)
    stated = counted(b, counts, count)
    if LAST_TO_LAST:
        offset = stated - q_count
    return first, count, tl.minimum(stated, count), counted(b, prefixes, 0), offset


@triton.jit
def load_rows(at, stride, count, row, column, WIDTH: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """Rows `row` `[R]` of a matrix `[count, WIDTH]` as `[R, BLOCK]`, zeros outside; WHOLE: no row lies outside."""
    places = at + row[:, None] * stride + column[None, :]
    if WHOLE and WIDTH == BLOCK:
        return tl.load(places)
    elif WHOLE:
        return tl.load(places, mask=column[None, :] < WIDTH, other=0.0)
    elif WIDTH == BLOCK:
        return tl.load(places, mask=row[:, None] < count, other=0.0)
    else:
        return tl.load(places, mask=(row[:, None] < count) & (column[None, :] < WIDTH), other=0.0)


@triton.jit
def store_rows(at, stride, count, row, column, x, WIDTH: tl.constexpr):
    """Stores x `[R, BLOCK]` to rows `row` `[R]` of a matrix `[count, WIDTH]`, nothing outside."""
    places = at + row[:, None] * stride + column[None, :]
    tl.store(places, x.to(at.dtype.element_ty), mask=(row[:, None] < count) & (column[None, :] < WIDTH))


@triton.jit
def first_key(place, left, BLOCK: tl.constexpr):
    """The first key that a query at `place` among the keys may see, rounded down to a block."""
    return tl.maximum(place - left, 0) // BLOCK * BLOCK


@triton.jit
def past_last_key(place, valid, prefix, reach, right):
    """The end of the keys that a query at `place` may see."""
    return tl.minimum(valid, tl.minimum(tl.maximum(place + reach + 1, prefix), place + right + 1))


@triton.jit
def seen(row, key, valid, prefix, reach, left, right, POSITIONAL: tl.constexpr):
    """True where a query at `row` among the keys attends to `key`: counts, kind and window together.

    reach: keys this far ahead are seen, and those before `prefix`; left, right: the window around the query.
    """
    inside = key[None, :] < valid
    if POSITIONAL:
        ahead = key[None, :] - row[:, None]
        inside = inside & ((ahead <= reach) | (key[None, :] < prefix)) & (ahead <= right) & (ahead >= -left)
    return inside


@triton.jit
def level_of(best, GUARD: tl.constexpr):
    """What is taken off the logits of each row: its maximum, or 0 (GUARD) where every key so far was masked."""
    if GUARD:
        return tl.where(best == float("-inf"), 0.0, best)
    else:
        return best


@triton.jit
def add_tile(weights, keep, total, acc, value, PRECISION: tl.constexpr):
    """Adds a tile to the running sums: weights `[R, C]` of the values `[C, DV]`; keep `[R]` scales the old sums."""
    total = total * keep + tl.sum(weights, 1)
    acc = tl.dot(weights.to(value.dtype), value, acc * keep[:, None], input_precision=PRECISION)
    return total, acc


@triton.jit
def stored_as(context, factor, inverse, zero, head, d, WIDTH: tl.constexpr, dtype: tl.constexpr):
    """A context `[R, BLOCK]` of one head as it is stored: as it is, or in eight bits where `inverse` is given.

    factor: of the columns of all heads `[N * WIDTH]`, or None.
    """
    if factor is not None:
        context *= tl.load(factor + head * WIDTH + d, d < WIDTH, 0.0)[None, :]
    if inverse is not None:
        context = in_eight_bits(context, inverse, zero, dtype)
    return context


@triton.jit
def averaged(acc, total):
    """The weighted mean; zeros where no key was met."""
    return acc * (1.0 / tl.where(total == 0.0, 1.0, total))[:, None]
