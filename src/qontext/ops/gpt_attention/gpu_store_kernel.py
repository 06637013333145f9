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
def store_tokens(
    qkv, bias, cos, sin, positions, slots, kept, table, cache, key_scale, value_scale, query,
    capacity, sinks, row, query_row, c_slot, c_part, c_head, c_place, t_slot, scale_step,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, PAIRS: tl.constexpr,
    HALF: tl.constexpr, BY_TOKEN: tl.constexpr, PAGE: tl.constexpr, CYCLIC: tl.constexpr, BLOCK: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK of the HEADS + 2 KV_HEADS heads of one token.

    cos, sin: float32 `[., PAIRS]`, a row a position, or (BY_TOKEN) a row a token; PAIRS is 0 without a rotation.
    kept: int32 `[T]`, 0 for tokens whose place in a cyclic cache a later token of the same step takes; None: all stay.
    """
    token = tl.program_id(0)
    head = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, BD)
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    position = tl.load(positions + token)
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
            pair = d // 2
        turned = inside & turning[None, :] & (head < HEADS + KV_HEADS)[:, None]
        across = head[:, None] * D + partner[None, :]
        other = tl.load(start + across, turned, 0.0).to(tl.float32)
        if bias is not None:
            other += tl.load(bias + across, turned, 0.0).to(tl.float32)
        angle = (token if BY_TOKEN else position).to(tl.int64) * PAIRS + pair
        c = tl.load(cos + angle, turning, 1.0)
        s = tl.load(sin + angle, turning, 0.0) * sign
        x = tl.where(turned, x * c[None, :] + other * s[None, :], x)
    asks = inside & (head < HEADS)[:, None]
    to = query + token.to(tl.int64) * query_row
    tl.store(to + at, x.to(query.dtype.element_ty), asks)
    if cache is not None:
        slot = tl.load(slots + token)
        lies = place_of(position, capacity, sinks, CYCLIC)
        if PAGE > 0:
            page = tl.load(table + slot.to(tl.int64) * t_slot + lies // PAGE).to(tl.int64)
            here = page * c_slot + (lies % PAGE).to(tl.int64) * c_place
        else:
            here = slot.to(tl.int64) * c_slot + lies.to(tl.int64) * c_place
        number = tl.maximum(head - HEADS, 0)
        is_value = number >= KV_HEADS
        lane = number % KV_HEADS
        scale = tl.full([BLOCK], 1.0, tl.float32)
        if key_scale is not None:
            scale = tl.where(
                is_value, tl.load(value_scale + lane * scale_step), tl.load(key_scale + lane * scale_step)
            )  # fmt: skip
        stored = inside & (head >= HEADS)[:, None]
        if kept is not None:
            stored = stored & (tl.zeros([BLOCK], tl.int32) + tl.load(kept + token) != 0)[:, None]
        offset = here + lane.to(tl.int64) * c_head + is_value.to(tl.int64) * c_part
        tl.store(cache + offset[:, None] + d[None, :], as_cached(x, scale, cache.dtype.element_ty), stored)
