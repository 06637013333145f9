"""Device code of attention over bytes: Q, K, V and probabilities in eight bits, sums of products in 32.

One program computes BM queries of one head and runs over the keys twice, in tiles of BN. The first pass finds what the
bytes of probabilities are counted from: each row's largest logit, and where they are steps of the normalised
probability, the sum of exponentials too. The second makes the bytes and adds up the values. Products of bytes are
exact, so both passes see the same logits.

Floats become bytes as they are read: rows of Q and K by the largest magnitude of the row, V by that of its sequence and
head, or all by scales that are given. Divisions are rounded as IEEE 754 says, so that bytes are those of the reference.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from ..attention_common.gpu_tiles import (
    averaged,
    first_key,
    keys_of,
    level_of,
    load_rows,
    past_last_key,
    seen,
    store_rows,
    tile_of,
)

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
MAGIC: tl.constexpr = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it leaves no digits behind the point


@triton.jit
def rounded(x):
    """The nearest whole number, the even one of two, for magnitudes below 2^22."""
    return (x + MAGIC) - MAGIC


@triton.jit
def scale_of(largest, bad, MOST: tl.constexpr):
    """(scale, inverse) that make the largest magnitude MOST; scales are NaN where `bad` is."""
    empty = largest < 1e-30
    some = tl.where(empty, 1.0, largest)
    most = tl.full(some.shape, MOST, tl.float32)
    scale = tl.where(empty, 1.0, tl.div_rn(some, most)) + bad
    return scale, tl.where(empty, 0.0, tl.div_rn(most, some))


@triton.jit
def given(scales, index, THREE: tl.constexpr):
    """(scale, inverse) of Q, K or V (0, 1, 2) where they are given."""
    scale = tl.load(scales + (index if THREE else 0))
    return scale, tl.div_rn(scale * 0 + 1.0, scale)


@triton.jit
def bytes_by(x, inverse):
    """Floats as bytes from -127 to 127."""
    return rounded(tl.clamp(x * inverse, -127.0, 127.0)).to(tl.int8)


@triton.jit
def byte_rows(x, scales, index, STORED: tl.constexpr, GIVEN: tl.constexpr, THREE: tl.constexpr):
    """(bytes, scale of each row) of rows of Q or K."""
    if STORED:
        scale, _ = given(scales, index, THREE)
        return x, tl.full([x.shape[0]], 0.0, tl.float32) + scale
    else:
        wide = x.to(tl.float32)
        bad = tl.sum(wide * 0, 1)
        if GIVEN:
            scale, inverse = given(scales, index, THREE)
            return bytes_by(wide, inverse), bad + scale
        else:
            scale, inverse = scale_of(tl.max(tl.abs(wide), 1), bad, 127.0)
            return bytes_by(wide, inverse[:, None]), scale


@triton.jit
def logits_of(
    query, at, k_row, first, place, valid, prefix, reach, left, right, by_row, scales,
    D: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr, POSITIONAL: tl.constexpr,
    STORED: tl.constexpr, GIVEN: tl.constexpr, THREE: tl.constexpr,
):  # fmt: skip
    """Logits in base 2 of the keys from `first` on, -inf where hidden; by_row: scales of queries with all factors."""
    column = tl.arange(0, BN)
    x = load_rows(at + tl.cast(first, tl.int64) * k_row, k_row, valid - first, column, tl.arange(0, BD), D, BD, False)
    key, scale = byte_rows(x, scales, 1, STORED, GIVEN, THREE)
    sums = tl.dot(query, tl.trans(key), out_dtype=tl.int32)
    logits = sums.to(tl.float32) * (by_row[:, None] * scale[None, :])
    shown = seen(place, first + column, valid, prefix, reach, left, right, POSITIONAL)
    return tl.where(shown, logits, float("-inf"))


@triton.jit
def value_scale(
    at, v_row, count, scales, MOST: tl.constexpr,
    D: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr,
    STORED: tl.constexpr, GIVEN: tl.constexpr, THREE: tl.constexpr,
):  # fmt: skip
    """(scale, inverse) of the values of one head: that which is given, or by the largest magnitude of `count` rows,
    which becomes MOST."""
    bad = tl.zeros([1], tl.float32)
    most = tl.zeros([1], tl.float32)
    if not STORED:
        row = tl.arange(0, BN)
        for first in range(0, count, BN):
            skip = tl.cast(first, tl.int64) * v_row
            x = load_rows(at + skip, v_row, count - first, row, tl.arange(0, BD), D, BD, False).to(tl.float32)
            bad += tl.sum(tl.sum(x * 0, 1), 0)
            most = tl.maximum(most, tl.max(tl.max(tl.abs(x), 1), 0))
    if GIVEN:
        scale, inverse = given(scales, 2, THREE)
        return bad + scale, tl.zeros([1], tl.float32) + inverse
    else:
        return scale_of(most, bad, MOST)


@triton.jit
def quant_attention_tiles(
    q, k, v, out, bounds_q, bounds_k, counts, prefixes, tiles, rows, keys, offset, reach, left, right, scale,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head, out_batch, out_row, out_head,
    scales, context_scale, dq_probs,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    POSITIONAL: tl.constexpr, LAST_TO_LAST: tl.constexpr, STORED: tl.constexpr, GIVEN: tl.constexpr,
    THREE: tl.constexpr, BY_STEP: tl.constexpr, BOUNDED: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program: BM queries of one head.

    STORED: q, k and v are bytes; GIVEN: their scales are given, THREE of them; BY_STEP: probabilities are bytes times
    dq_probs; BOUNDED: the largest logit that bytes can give may stand in for each row's largest.
    """
    b, head, start, q_first, q_count = tile_of(tiles, bounds_q, rows, HEADS, BM, OVERLAP)
    if start >= q_count:
        return
    k_first, k_count, valid, prefix, offset = keys_of(
        b, bounds_k, counts, prefixes, keys, q_count, offset, LAST_TO_LAST
    )  # fmt: skip
    begin = 0
    end = valid
    if POSITIONAL:
        low = start + offset
        high = low + tl.minimum(BM, q_count - start) - 1
        begin = first_key(low, left, BN)
        end = past_last_key(high, valid, prefix, reach, right)
    row = tl.arange(0, BM)
    from_q = q + b * q_batch + (q_first + start).to(tl.int64) * q_row + head * q_head
    from_k = k + b * k_batch + tl.cast(k_first, tl.int64) * k_row + head // GROUPS * k_head
    from_v = v + b * v_batch + tl.cast(k_first, tl.int64) * v_row + head // GROUPS * v_head
    x = load_rows(from_q, q_row, q_count - start, row, tl.arange(0, BD), D, BD, False)
    query, by_row = byte_rows(x, scales, 0, STORED, GIVEN, THREE)
    by_row = by_row * (scale * LOG2E)
    counted = tl.where(valid > 0, valid, k_count)
    by_value, inverse = value_scale(from_v, v_row, counted, scales, 127.0, D, BD, BN, STORED, GIVEN, THREE)
    place = start + offset + row
    top = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    bounded = False
    if BOUNDED:
        key_scale, _ = given(scales, 1, THREE)
        query_scale, _ = given(scales, 0, THREE)
        bound = query_scale * key_scale * (16129.0 * LOG2E) * scale
        # No logit lies further from the bound than twice the bound: beyond 2^-100 exponentials would leave float32.
        bounded = 2.0 * bound < 100.0
        top = tl.where(bounded, bound, top)
    for first in range(begin, end, BN):
        logits = logits_of(
            query, from_k, k_row, first, place, valid, prefix, reach, left, right, by_row, scales,
            D, BD, BN, POSITIONAL, STORED, GIVEN, THREE,
        )  # fmt: skip
        best = top
        if not bounded:
            best = tl.maximum(top, tl.max(logits, 1))
        if BY_STEP:
            level = level_of(best, True)
            total = total * tl.exp2(top - level) + tl.sum(tl.exp2(logits - level[:, None]), 1)
        top = best
    level = level_of(top, True)
    units = tl.full([BM], 127.0, tl.float32)
    if BY_STEP:
        units = 1.0 / (tl.where(total == 0.0, 1.0, total) * dq_probs)
    sums = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, BD], tl.int32)
    column = tl.arange(0, BN)
    for first in range(begin, end, BN):
        logits = logits_of(
            query, from_k, k_row, first, place, valid, prefix, reach, left, right, by_row, scales,
            D, BD, BN, POSITIONAL, STORED, GIVEN, THREE,
        )  # fmt: skip
        held = rounded(tl.minimum(tl.exp2(logits - level[:, None]) * units[:, None], 127.0, tl.PropagateNan.ALL))
        sums += tl.sum(held, 1)
        skip = tl.cast(first, tl.int64) * v_row
        value = load_rows(from_v + skip, v_row, valid - first, column, tl.arange(0, BD), D, BD, False)
        if not STORED:
            value = bytes_by(value.to(tl.float32), inverse[:, None])
        acc = tl.dot(held.to(tl.int8), value, acc, out_dtype=tl.int32)
    if BY_STEP:
        context = acc.to(tl.float32) * (dq_probs + sums * 0)[:, None]
    else:
        context = averaged(acc.to(tl.float32), sums)
    context = context * by_value[:, None]
    if context_scale is not None:
        step = tl.load(context_scale)
        context = rounded(tl.clamp(tl.div_rn(context, context * 0 + step), -128.0, 127.0))
    to = out + b * out_batch + (q_first + start).to(tl.int64) * out_row + head * out_head
    store_rows(to, out_row, q_count - start, row, tl.arange(0, BD), context, D)
