"""Device code of attention with everything that the operators declare: mask and bias tensors, soft cap, empty rows.

    logits  = softcap(scale * Q K^T) + additive mask + bias, -inf where a key is hidden
    context = softmax(logits) V, and for rows that see no key what `empty_row` says

Logits stay in natural units and their maximum is taken off before the change to base 2: a constant as large as float32
holds cannot overflow. A row sees no key when all of them are hidden or have -inf added; EMPTY 0 leaves it zeros, and
for the others the program runs over the keys once more: 1 without hiding any (as_unmasked), 2 all alike (uniform).
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from .gpu_tiles import (
    add_tile,
    averaged,
    first_key,
    keys_of,
    level_of,
    load_rows,
    past_last_key,
    seen,
    store_rows,
    stored_as,
    tile_of,
)

_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def capped(logits, softcap):
    """softcap * tanh(logits / softcap), by an exponential that may overflow to infinity without harm."""
    return softcap - 2.0 * softcap / (tl.exp2(logits * (2.0 * _LOG2E / softcap)) + 1.0)


@triton.jit
def extra_tile(x, x_row, row, column, rows, keys):
    """The tile of a mask or bias at `row` and `column` in float32, 0 outside."""
    inside = (row[:, None] < rows) & (column[None, :] < keys)
    places = x + row[:, None].to(tl.int64) * x_row + column[None, :]
    return tl.load(places, mask=inside, other=0).to(tl.float32)


@triton.jit
def attend_masked(
    query, k, v, mask, bias, k_row, v_row, mask_row, bias_row, row, rows, keys, offset, begin, end, valid,
    prefix, reach, left, right, scale, softcap,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    SOFTCAP: tl.constexpr, POSITIONAL: tl.constexpr, OPEN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Runs over the keys from `begin` to `end`. OPEN: 0 hides keys, 1 hides none, 2 takes all of them alike."""
    top = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, BD], tl.float32)
    d = tl.arange(0, BD)
    dv = tl.arange(0, BD)
    for first in range(begin, end, BN):
        skip = tl.cast(first, tl.int64)
        column = first + tl.arange(0, BN)
        if OPEN == 2:
            logits = tl.zeros([BM, BN], tl.float32)
        else:
            key = load_rows(k + skip * k_row, k_row, keys - first, tl.arange(0, BN), d, D, BD, False)
            logits = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
            if SOFTCAP:
                logits = capped(logits, softcap)
            if mask is not None and mask.dtype.element_ty.is_floating():
                logits += extra_tile(mask, mask_row, row, column, rows, keys)
            if bias is not None:
                logits += extra_tile(bias, bias_row, row, column, rows, keys)
        if OPEN == 0:
            shown = seen(row + offset, column, valid, prefix, reach, left, right, POSITIONAL)
            if mask is not None and not mask.dtype.element_ty.is_floating():
                shown = shown & (extra_tile(mask, mask_row, row, column, rows, keys) != 0.0)
            logits = tl.where(shown, logits, float("-inf"))
        else:
            logits = tl.where(column[None, :] < keys, logits, float("-inf"))
        value = load_rows(v + skip * v_row, v_row, keys - first, tl.arange(0, BN), dv, DV, BD, False)
        best = tl.maximum(top, tl.max(logits, 1))
        level = level_of(best, True)
        total, acc = add_tile(
            tl.exp2((logits - level[:, None]) * _LOG2E), tl.exp2((top - level) * _LOG2E), total, acc, value, PRECISION
        )
        top = best
    return top, total, acc


@triton.jit
def masked_attention_tiles(
    q, k, v, out, held_factor, held_inverse, held_zero, mask, bias, bounds_q, bounds_k, counts, prefixes, tiles,
    rows, keys, offset, reach, left, right, scale, softcap,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head,
    out_batch, out_row, out_head, mask_batch, mask_head, mask_row, bias_batch, bias_head, bias_row,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, SOFTCAP: tl.constexpr, POSITIONAL: tl.constexpr, LAST_TO_LAST: tl.constexpr,
    EMPTY: tl.constexpr, PRECISION: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program: BM queries of one head. mask, bias: `[B, N, S, Skv]` by strides, 0 where an axis is shared."""
    b, head, start, q_first, q_count = tile_of(tiles, bounds_q, rows, HEADS, BM, OVERLAP)
    if start >= q_count:
        return
    k_first, k_count, valid, prefix, offset = keys_of(
        b, bounds_k, counts, prefixes, keys, q_count, offset, LAST_TO_LAST
    )  # fmt: skip
    low = start + offset
    high = low + tl.minimum(BM, q_count - start) - 1
    begin = first_key(low, left, BN)
    end = past_last_key(high, valid, prefix, reach, right)
    row = start + tl.arange(0, BM)
    d = tl.arange(0, BD)
    from_q = q + b * q_batch + (q_first + start).to(tl.int64) * q_row + head * q_head
    query = load_rows(from_q, q_row, q_count - start, tl.arange(0, BM), d, D, BD, False)
    from_k = k + b * k_batch + tl.cast(k_first, tl.int64) * k_row + head // GROUPS * k_head
    from_v = v + b * v_batch + tl.cast(k_first, tl.int64) * v_row + head // GROUPS * v_head
    if mask is not None:
        mask += b * mask_batch + head * mask_head
    if bias is not None:
        bias += b * bias_batch + head * bias_head
    top, total, acc = attend_masked(
        query, from_k, from_v, mask, bias, k_row, v_row, mask_row, bias_row, row, q_count, k_count, offset, begin, end,
        valid, prefix, reach, left, right, scale, softcap, D, DV, BD, BM, BN, SOFTCAP, POSITIONAL, 0, PRECISION,
    )  # fmt: skip
    if EMPTY != 0:
        empty = top == float("-inf")
        if tl.max(empty.to(tl.int32), 0) > 0:
            top, open_total, open_acc = attend_masked(
                query, from_k, from_v, mask, bias, k_row, v_row, mask_row, bias_row, row, q_count, k_count, offset, 0,
                k_count, valid, prefix, reach, left, right, scale, softcap,
                D, DV, BD, BM, BN, SOFTCAP, POSITIONAL, EMPTY, PRECISION,
            )  # fmt: skip
            total = tl.where(empty, open_total, total)
            acc = tl.where(empty[:, None], open_acc, acc)
    to = out + b * out_batch + (q_first + start).to(tl.int64) * out_row + head * out_head
    context = stored_as(
        averaged(acc, total), held_factor, held_inverse, held_zero, head, tl.arange(0, BD), DV, out.dtype.element_ty
    )
    store_rows(to, out_row, q_count - start, tl.arange(0, BM), tl.arange(0, BD), context, DV)
