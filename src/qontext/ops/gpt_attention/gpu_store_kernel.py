"""Device code that puts new tokens in place: bias, rotation of queries and keys, keys and values into the cache.

Each number of the fused projection is read once (its partner of the rotation from the first-level cache) and written
once: queries side by side for attention, keys and values where the cache holds them, quantised where it is. Rotation
and quantisation in float32.
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from .gpu_decode_kernel import place_of

TURNS = tl.constexpr(2048)  # coarse turns, and fine ones in each: positions up to their product
FAR = tl.constexpr(1 << 30)
ROUNDING = tl.constexpr(12582912.0)  # 1.5 * 2^23: added and taken off again it leaves whole numbers, ties to even


@triton.jit
def as_cached(x, scale, dtype: tl.constexpr):
    """x `[R, C]` as a cache of `dtype` holds it; `scale` `[R]` counts for caches of 8 bits."""
    if dtype == tl.int8:
        scaled = tl.minimum(tl.maximum(x * scale[:, None], -128.0), 127.0)
        return ((scaled + ROUNDING) - ROUNDING).to(tl.int8)
    elif dtype.primitive_bitwidth == 8:
        return tl.minimum(tl.maximum(x * scale[:, None], -448.0), 448.0).to(dtype)
    else:
        return x.to(dtype)


@triton.jit
def angles_at(cos, sin, at, pair, PAIRS: tl.constexpr, FINE: tl.constexpr):
    """cos and sin of pairs at a position, from tables of coarse and fine turns: `Turns` says how they lie."""
    coarse = at // FINE * PAIRS + pair
    fine = (TURNS + at % FINE) * PAIRS + pair
    c, s = tl.load(cos + coarse), tl.load(sin + coarse)
    d, t = tl.load(cos + fine), tl.load(sin + fine)
    return c * d - s * t, s * d + c * t


@triton.jit
def store_tokens(
    qkv, bias, cos, sin, first, queries, past, slots, table, cache, key_scale, value_scale, query, keys, values,
    batch, capacity, pages, sinks, row, query_row, c_slot, c_part, c_head, c_place, t_slot, scale_step,
    EACH: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr,
    BD: tl.constexpr, PAIRS: tl.constexpr, HALF: tl.constexpr, BY_TOKEN: tl.constexpr, PAGE: tl.constexpr,
    CYCLIC: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK of the HEADS + 2 KV_HEADS heads of one token.

    EACH: rows of `qkv` that each sequence has; 0 where `first` says which is its first (ROWS >= batch is searched).
    keys, values: `[T, KV_HEADS, D]`, filled side by side as well where they are given.
    cos, sin: float32 `[., PAIRS]`, tables of turns by position, or (BY_TOKEN) a row a token; PAIRS is 0 without a
        rotation.
    """
    token = tl.program_id(0)
    head = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, BD)
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    if EACH > 0:
        b = token // EACH
        turn = token % EACH
    else:
        r = tl.arange(0, ROWS)
        starts = tl.load(first + r, r < batch, FAR)
        # Sequences without tokens share their start with the next one, which the count takes.
        b = tl.sum((starts <= token).to(tl.int32), 0) - 1
        turn = token - tl.load(first + b)
    count = EACH
    if queries is not None:
        count = tl.load(queries + b)
    if turn >= count:
        return
    before = 0
    if past is not None:
        before = tl.load(past + b)
    position = before + turn
    start = qkv + token.to(tl.int64) * row
    inside = (head < HEADS + 2 * KV_HEADS)[:, None] & (d < D)[None, :]
    at = head[:, None] * D + d[None, :]
    x = tl.load(start + at, inside, 0.0).to(tl.float32)
    if bias is not None:
        x += tl.load(bias + at, inside, 0.0).to(tl.float32)
    if PAIRS > 0:
        turning = d < 2 * PAIRS
        if HALF:
            partner = tl.where(d < PAIRS, d + PAIRS, d - PAIRS)
            sign = tl.where(d < PAIRS, -1.0, 1.0)
            pair = d % PAIRS
        else:
            partner = d ^ 1
            sign = tl.where(d % 2 == 0, -1.0, 1.0)
            pair = d // 2 % PAIRS
        turned = inside & turning[None, :] & (head < HEADS + KV_HEADS)[:, None]
        across = head[:, None] * D + partner[None, :]
        other = tl.load(start + across, turned, 0.0).to(tl.float32)
        if bias is not None:
            other += tl.load(bias + across, turned, 0.0).to(tl.float32)
        if BY_TOKEN:
            angle = token.to(tl.int64) * PAIRS + pair
            c, s = tl.load(cos + angle), tl.load(sin + angle)
        else:
            c, s = angles_at(cos, sin, tl.minimum(position, TURNS * TURNS - 1), pair, PAIRS, TURNS)
        x = tl.where(turned, x * c[None, :] + other * (s * sign)[None, :], x)
    asks = inside & (head < HEADS)[:, None]
    to = query + token.to(tl.int64) * query_row
    tl.store(to + at, x.to(query.dtype.element_ty), asks)
    if cache is not None:
        slot = b
        if slots is not None:
            slot = tl.load(slots + b)
        lies = place_of(position, capacity, sinks, CYCLIC)
        stays = lies < capacity
        if CYCLIC:  # else a later token of the step takes the place
            stays = stays & ((position < sinks) | (position >= before + count - (capacity - sinks)))
        if PAGE > 0:
            page = tl.load(table + slot.to(tl.int64) * t_slot + lies // PAGE, stays, -1)
            stays = stays & (page >= 0) & (page < pages)
            here = page.to(tl.int64) * c_slot + (lies % PAGE).to(tl.int64) * c_place
        else:
            stays = stays & (slot >= 0) & (slot < pages)
            here = slot.to(tl.int64) * c_slot + lies.to(tl.int64) * c_place
        number = tl.maximum(head - HEADS, 0)
        is_value = number >= KV_HEADS
        lane = number % KV_HEADS
        if keys is not None:
            side = (token.to(tl.int64) * KV_HEADS + lane) * D
            mine = inside & ((head >= HEADS) & (number < KV_HEADS))[:, None]
            tl.store(keys + side[:, None] + d[None, :], x.to(keys.dtype.element_ty), mine)
            if values is not None:
                mine = inside & is_value[:, None]
                tl.store(values + side[:, None] + d[None, :], x.to(values.dtype.element_ty), mine)
        scale = tl.full([BLOCK], 1.0, tl.float32)
        if key_scale is not None:
            scale = tl.where(
                is_value, tl.load(value_scale + lane * scale_step), tl.load(key_scale + lane * scale_step)
            )  # fmt: skip
        stored = inside & ((head >= HEADS) & (tl.zeros([BLOCK], tl.int32) + stays.to(tl.int32) != 0))[:, None]
        offset = here + lane.to(tl.int64) * c_head + is_value.to(tl.int64) * c_part
        tl.store(cache + offset[:, None] + d[None, :], as_cached(x, scale, cache.dtype.element_ty), stored)
