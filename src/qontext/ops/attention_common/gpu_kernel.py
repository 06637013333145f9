"""Device code of attention without mask tensors: full, causal, prefix and windowed, padded and packed.

    context = softmax(scale * Q K^T, over the keys that a query sees) V

One program computes BM queries of one head: it runs over the keys in tiles of BN with the online softmax of Milakov and
Gimelshein, in base 2 with the scale folded in. Rows that see no key give zeros. Sums and softmax in float32, products
in the dtype of the operands. Sequences shorter than the longest one leave programs without rows, which end at once, so
the launch needs no list of tiles and no lengths on the host.
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


@triton.jit
def attend(
    query, top, total, acc, k, v, k_row, v_row, place, begin, end, valid, prefix, reach, left, right, scale,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr,
    MASKED: tl.constexpr, POSITIONAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Runs over the keys from `begin` to `end`; MASKED: some of them may be hidden from some rows."""
    column = tl.arange(0, BN)
    d = tl.arange(0, BD)
    dv = tl.arange(0, BD)
    for first in range(begin, end, BN):
        skip = tl.cast(first, tl.int64)
        key = load_rows(k + skip * k_row, k_row, valid - first, column, d, D, BD, not MASKED)
        logits = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        if MASKED:
            shown = seen(place, first + column, valid, prefix, reach, left, right, POSITIONAL)
            logits = tl.where(shown, logits, float("-inf"))
        value = load_rows(v + skip * v_row, v_row, valid - first, column, dv, DV, BD, not MASKED)
        best = tl.maximum(top, tl.max(logits, 1))
        level = level_of(best, MASKED and POSITIONAL) * scale
        total, acc = add_tile(
            tl.exp2(logits * scale - level[:, None]), tl.exp2(top * scale - level), total, acc, value, PRECISION
        )
        top = best
    return top, total, acc


@triton.jit
def attention_tiles(
    q, k, v, out, held_factor, held_inverse, held_zero, bounds_q, bounds_k, counts, prefixes, tiles, rows, keys,
    offset, reach, left, right, scale,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head, out_batch, out_row, out_head,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, POSITIONAL: tl.constexpr, LAST_TO_LAST: tl.constexpr, PEEL: tl.constexpr,
    PRECISION: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program: BM queries of one head. PEEL: keys that every row sees get a loop of their own, without masks.

    LAST_TO_LAST: the last query stands at the last valid key; else the first one at key `offset`.
    """
    b, head, start, q_first, q_count = tile_of(tiles, bounds_q, rows, HEADS, BM, OVERLAP)
    if start >= q_count:
        return
    k_first, _, valid, prefix, offset = keys_of(
        b, bounds_k, counts, prefixes, keys, q_count, offset, LAST_TO_LAST
    )  # fmt: skip
    begin = 0
    end = valid
    clear_from = 0
    clear_to = valid // BN * BN
    if POSITIONAL:
        low = start + offset
        high = low + tl.minimum(BM, q_count - start) - 1
        begin = first_key(low, left, BN)
        end = past_last_key(high, valid, prefix, reach, right)
        clear_from = first_key(high + BN - 1, left, BN)
        clear_to = past_last_key(low, valid, prefix, reach, right) // BN * BN
        clear_to = tl.maximum(clear_to, clear_from)
    row = tl.arange(0, BM)
    from_q = q + b * q_batch + (q_first + start).to(tl.int64) * q_row + head * q_head
    query = load_rows(from_q, q_row, q_count - start, row, tl.arange(0, BD), D, BD, False)
    from_k = k + b * k_batch + tl.cast(k_first, tl.int64) * k_row + head // GROUPS * k_head
    from_v = v + b * v_batch + tl.cast(k_first, tl.int64) * v_row + head // GROUPS * v_head
    top = tl.full([BM], float("-inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, BD], tl.float32)
    place = start + offset + row
    if PEEL:
        if POSITIONAL:
            top, total, acc = attend(
                query, top, total, acc, from_k, from_v, k_row, v_row, place, begin, tl.minimum(clear_from, end),
                valid, prefix, reach, left, right, scale, D, DV, BD, BN, True, True, PRECISION,
            )  # fmt: skip
        top, total, acc = attend(
            query, top, total, acc, from_k, from_v, k_row, v_row, place, clear_from, tl.minimum(clear_to, end),
            valid, prefix, reach, left, right, scale, D, DV, BD, BN, False, POSITIONAL, PRECISION,
        )  # fmt: skip
        begin = clear_to
    top, total, acc = attend(
        query, top, total, acc, from_k, from_v, k_row, v_row, place, begin, end,
        valid, prefix, reach, left, right, scale, D, DV, BD, BN, True, POSITIONAL, PRECISION,
    )  # fmt: skip
    to = out + b * out_batch + (q_first + start).to(tl.int64) * out_row + head * out_head
    context = stored_as(
        averaged(acc, total), held_factor, held_inverse, held_zero, head, tl.arange(0, BD), DV, out.dtype.element_ty
    )
    store_rows(to, out_row, q_count - start, row, tl.arange(0, BD), context, DV)
