"""Device code of attention in float8_e4m3: Q, K, V and probabilities in eight bits, sums of products in float32.

One program computes BM queries of one head and runs over the keys once, in tiles of BN. Weights of a row are counted
from a power of two above its largest logit so far: when that moves, what was summed is multiplied by a power of two,
and weights keep the digits that they would have had from the start. So the tiles of a kernel do not show in its result.

The matrix units multiply halves: every number of eight bits is one, and their products are exact in float32. Floats
become eight bits as they are read, by the rules of `gpu_kernel.py`.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from ..attention_common.gpu_tiles import (
    averaged,
    first_key,
    keys_of,
    load_rows,
    past_last_key,
    seen,
    store_rows,
    tile_of,
)
from ..eight_bits_kernel import MOST, in_eight_bits
from .gpu_kernel import given, scale_of, value_scale

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
TOP: tl.constexpr = tl.constexpr(8.0)  # weights of a row end between 2^7 and 2^8


@triton.jit
def rows_in_floats(x, scales, index, STORED: tl.constexpr, GIVEN: tl.constexpr, THREE: tl.constexpr):
    """(what float8_e4m3 holds, in float16, scale of each row) of rows of Q or K."""
    if STORED:
        scale, _ = given(scales, index, THREE)
        return x.to(tl.float16), tl.full([x.shape[0]], 0.0, tl.float32) + scale
    else:
        wide = x.to(tl.float32)
        bad = tl.sum(wide * 0, 1)
        if GIVEN:
            scale, inverse = given(scales, index, THREE)
            return in_eight_bits(wide, inverse, 0.0, tl.float8e4nv).to(tl.float16), bad + scale
        else:
            scale, inverse = scale_of(tl.max(tl.abs(wide), 1), bad, MOST)
            return in_eight_bits(wide, inverse[:, None], 0.0, tl.float8e4nv).to(tl.float16), scale


@triton.jit
def fp8_attention_tiles(
    q, k, v, out, bounds_q, bounds_k, counts, prefixes, tiles, rows, keys, offset, reach, left, right, scale,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head, out_batch, out_row, out_head,
    scales, context_scale,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    POSITIONAL: tl.constexpr, LAST_TO_LAST: tl.constexpr, STORED: tl.constexpr, GIVEN: tl.constexpr,
    THREE: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program: BM queries of one head. STORED: q, k and v are in eight bits; GIVEN: their scales are given, THREE
    of them."""
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
    column = tl.arange(0, BN)
    d = tl.arange(0, BD)
    from_q = q + b * q_batch + (q_first + start).to(tl.int64) * q_row + head * q_head
    from_k = k + b * k_batch + tl.cast(k_first, tl.int64) * k_row + head // GROUPS * k_head
    from_v = v + b * v_batch + tl.cast(k_first, tl.int64) * v_row + head // GROUPS * v_head
    query, by_row = rows_in_floats(
        load_rows(from_q, q_row, q_count - start, row, d, D, BD, False), scales, 0, STORED, GIVEN, THREE
    )  # fmt: skip
    by_row = by_row * (scale * LOG2E)
    counted = tl.where(valid > 0, valid, k_count)
    by_value, inverse = value_scale(from_v, v_row, counted, scales, MOST, D, BD, BN, STORED, GIVEN, THREE)
    place = start + offset + row
    level = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, BD], tl.float32)
    for first in range(begin, end, BN):
        skip = tl.cast(first, tl.int64)
        x = load_rows(from_k + skip * k_row, k_row, valid - first, column, d, D, BD, False)
        key, by_key = rows_in_floats(x, scales, 1, STORED, GIVEN, THREE)
        logits = tl.dot(query, tl.trans(key)) * (by_row[:, None] * by_key[None, :])
        shown = seen(place, first + column, valid, prefix, reach, left, right, POSITIONAL)
        logits = tl.where(shown, logits, float("-inf"))
        best = tl.maximum(level, tl.ceil(tl.max(logits, 1)))
        origin = tl.where(best == float("-inf"), 0.0, best)
        weights = tl.exp2(logits - origin[:, None] + TOP)
        keep = tl.exp2(level - origin)
        total = total * keep + tl.sum(weights, 1)
        value = load_rows(from_v + skip * v_row, v_row, valid - first, column, d, D, BD, False)
        if not STORED:
            value = in_eight_bits(value.to(tl.float32), inverse[:, None], 0.0, tl.float8e4nv)
        held = weights.to(tl.float8e4nv).to(tl.float16)
        acc = tl.dot(held, value.to(tl.float16), acc * keep[:, None])
        level = best
    context = averaged(acc, total) * by_value[:, None]
    if context_scale is not None:
        step = tl.load(context_scale)
        context = in_eight_bits(context, tl.div_rn(step * 0 + 1.0, step), 0.0, tl.float8e4nv)
    to = out + b * out_batch + (q_first + start).to(tl.int64) * out_row + head * out_head
    store_rows(to, out_row, q_count - start, row, d, context, D)
