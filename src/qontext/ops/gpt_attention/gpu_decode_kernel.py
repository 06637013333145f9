"""Device code of the generation phase: few queries of each sequence over a cache that is read where it lies.

One program computes all queries of one key head of one sequence over a share of its tokens: the heads of a group and
the new tokens lie side by side in the rows of the matrix unit, so that every key and value is read once. Shares of one
sequence leave sums that `join_shares` brings together; with one share the result is written at once.

Softmax in base 2 and sums in float32. A quantised cache is multiplied by its scales on the logits and on the sums.
Products run in the dtype of the queries; with a cache of 8 bits and queries of 16 in fp16, which holds every int8 and
e4m3 exactly and is one instruction away from them, the queries divided by their largest number.
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..attention_common.gpu_tiles import add_tile, level_of

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def token_at(index, sinks, skipped):
    """The token of an index into what is seen: the first `sinks` tokens, then those from `skipped` on."""
    return tl.where(index < sinks, index, index - sinks + skipped)


@triton.jit
def place_of(token, capacity, sinks, CYCLIC: tl.constexpr):
    """Where a token lies in its slot: behind the sinks a cyclic cache goes round."""
    if CYCLIC:
        around = sinks + (token - sinks) % tl.maximum(capacity - sinks, 1)
        return tl.where(token < capacity, token, around)
    else:
        return token


@triton.jit
def numbers(x, dtype: tl.constexpr):
    """What a cache holds, in the dtype of the products."""
    if x.dtype == tl.int8 and dtype == tl.float16:
        # 0x6400 | u is 1024 + u: bytes become halves without the slow conversion of integers.
        bits = (x.to(tl.uint8, bitcast=True) ^ 0x80).to(tl.uint16) | 0x6400
        return bits.to(tl.float16, bitcast=True) - 1152.0
    else:
        return x.to(dtype)


@triton.jit
def halves_of_words(words, INT8: tl.constexpr):
    """The four bytes of each word as fp16: tensors of bytes 0, 1, 2 and 3.

    The matrix unit takes values of two tokens side by side in one register; words of two tokens hold them byte by
    byte, so bytes are paired first and converted two at a time.
    """
    if INT8:  # 0x6400 | u is 1024 + u, u is the byte + 128
        return tl.inline_asm_elementwise(
            """
            {
            .reg .b32 a, b, m, x, y;
            mov.b32 m, 0x64806480;
            xor.b32 a, $4, 0x80808080;
            xor.b32 b, $5, 0x80808080;
            prmt.b32 x, a, b, 0x5140;
            prmt.b32 y, a, b, 0x7362;
            prmt.b32 a, x, 0x64646464, 0x4140;
            prmt.b32 b, x, 0x64646464, 0x4342;
            sub.f16x2 $0, a, m;
            sub.f16x2 $1, b, m;
            prmt.b32 a, y, 0x64646464, 0x4140;
            prmt.b32 b, y, 0x64646464, 0x4342;
            sub.f16x2 $2, a, m;
            sub.f16x2 $3, b, m;
            }
            """,
            "=r,=r,=r,=r,r,r", [words], dtype=(tl.float16, tl.float16, tl.float16, tl.float16), is_pure=True, pack=2,
        )  # fmt: skip
    else:
        return tl.inline_asm_elementwise(
            """
            {
            .reg .b32 x, y;
            .reg .b16 l, h;
            prmt.b32 x, $4, $5, 0x5140;
            prmt.b32 y, $4, $5, 0x7362;
            mov.b32 {l, h}, x;
            cvt.rn.f16x2.e4m3x2 $0, l;
            cvt.rn.f16x2.e4m3x2 $1, h;
            mov.b32 {l, h}, y;
            cvt.rn.f16x2.e4m3x2 $2, l;
            cvt.rn.f16x2.e4m3x2 $3, h;
            }
            """,
            "=r,=r,=r,=r,r,r", [words], dtype=(tl.float16, tl.float16, tl.float16, tl.float16), is_pure=True, pack=2,
        )  # fmt: skip


@triton.jit
def rows_of_tiles(
    start, end, near, skipped, slot, before, table, indirection, capacity, pages, sinks, c_slot, c_place, t_slot,
    i_batch, i_beam, beams, TOKENS: tl.constexpr, PAGE: tl.constexpr, CYCLIC: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Offsets `[TOKENS]` of the tokens of a tile in the cache, past key heads and parts."""
    index = start + tl.arange(0, TOKENS)
    inside = index < end
    token = token_at(index, near, skipped) if WINDOW else index
    lies = place_of(token, capacity, sinks, CYCLIC)
    own = tl.zeros([TOKENS], tl.int32) + slot
    if indirection is not None:
        beam = tl.load(
            indirection + slot // beams * i_batch + slot % beams * i_beam + token,
            mask=inside & (token < before), other=0,
        )  # fmt: skip
        own = tl.where(token < before, slot - slot % beams + beam, slot)
    if PAGE > 0:
        page = tl.load(table + own.to(tl.int64) * t_slot + lies // PAGE, mask=inside, other=0)
        return tl.minimum(page.to(tl.uint32), pages - 1).to(tl.int64) * c_slot + (lies % PAGE) * c_place
    else:
        return tl.minimum(own.to(tl.uint32), pages - 1).to(tl.int64) * c_slot + lies.to(tl.int64) * c_place


@triton.jit
def decode_tokens(
    q, cache, words, out, sums, levels, first, queries, past, slots, prefixes, table, indirection,
    key_scale, value_scale, slopes, scale, softcap, capacity, pages, window, sinks,
    q_row, q_head, out_row, out_head, c_slot, c_part, c_head, c_place, t_slot, i_batch, i_beam, beams, scale_step,
    shares, blocks, EACH: tl.constexpr, SHARED: tl.constexpr, MOST: tl.constexpr, GROUP: tl.constexpr,
    HEADS: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
    PAGE: tl.constexpr, CYCLIC: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, PRECISION: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program: (sequence, block of MOST queries, key head, share).

    HEADS: key heads; row r of ROWS is head r % GROUP of query r // GROUP.
    EACH: rows of tokens that each sequence has, 0 where `first` says which is its first.
    PAGE: tokens of a page, 0 for a contiguous cache.
    """
    program = tl.program_id(0)
    share = program % shares
    head = program // shares % HEADS
    block = blocks - 1 - program // shares // HEADS % blocks  # later queries see more keys and start first
    b = program // shares // HEADS // blocks
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    count = EACH
    if queries is not None:
        count = tl.load(queries + b)
    before = 0
    if past is not None:
        before = tl.load(past + b)
    slot = b
    if slots is not None:
        slot = tl.load(slots + b)
    begun = block * MOST
    total = tl.where(count > begun, before + tl.minimum(count, begun + MOST), 0)
    if prefixes is not None:  # all see it
        total = tl.where(count > begun, tl.maximum(total, tl.minimum(tl.load(prefixes + b), before + count)), 0)
    if not CYCLIC:  # what lies beyond the cache is somebody else's
        total = tl.minimum(total, capacity)
    row = tl.arange(0, ROWS)
    d = tl.arange(0, BD)
    query_of = begun + row // GROUP
    mine = row // GROUP < MOST
    real = mine & (query_of < count)
    at = (b * EACH if EACH > 0 else tl.load(first + b)) + query_of
    lane = head * GROUP + row % GROUP
    query = tl.load(
        q + at.to(tl.int64)[:, None] * q_row + lane[:, None] * q_head + d[None, :],
        mask=real[:, None] & (d < D)[None, :], other=0.0,
    )  # fmt: skip
    logit_scale = tl.full([ROWS], scale, tl.float32)
    if cache.dtype.element_ty.primitive_bitwidth == 8 and q.dtype.element_ty == tl.bfloat16:
        most = tl.max(tl.abs(query.to(tl.float32)), 1)
        most = tl.where(most == 0.0, 1.0, most)
        query = (query.to(tl.float32) / most[:, None]).to(tl.float16)
        logit_scale = logit_scale * most
    place = before + query_of
    skipped = 0
    near = 0
    if WINDOW:
        near = tl.minimum(sinks, total)
        skipped = tl.maximum(before + begun - window + 1, near)
    length = tl.maximum(near + total - skipped, 0)
    each = tl.cdiv(tl.cdiv(length, TOKENS), shares) * TOKENS
    begin = share * each
    end = tl.minimum(begin + each, length)
    if key_scale is not None:
        logit_scale = logit_scale * tl.load(key_scale + head * scale_step)
    if not SOFTCAP:
        logit_scale = logit_scale * LOG2E
    slope = tl.zeros([ROWS], tl.float32)
    if slopes is not None:
        slope = tl.load(slopes + lane).to(tl.float32) * LOG2E
    top = tl.full([ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    if words is not None:  # columns 4w, 4w + 1, 4w + 2, 4w + 3
        w = tl.arange(0, BD // 4)
        acc_0 = tl.zeros([ROWS, BD // 4], tl.float32)
        acc_1 = tl.zeros([ROWS, BD // 4], tl.float32)
        acc_2 = tl.zeros([ROWS, BD // 4], tl.float32)
        acc_3 = tl.zeros([ROWS, BD // 4], tl.float32)
    else:
        acc = tl.zeros([ROWS, BD], tl.float32)
    index = tl.arange(0, TOKENS)
    keys = cache + head * c_head
    rows = rows_of_tiles(
        begin, end, near, skipped, slot, before, table, indirection, capacity, pages, sinks, c_slot, c_place, t_slot,
        i_batch, i_beam, beams, TOKENS, PAGE, CYCLIC, WINDOW,
    )  # fmt: skip
    for start in range(begin, end, TOKENS):
        token = token_at(start + index, near, skipped) if WINDOW else start + index
        inside = start + index < end
        # Where the next tile lies is asked for a tile ahead: its keys are on the way before this tile is done.
        ahead = rows_of_tiles(
            start + TOKENS, end, near, skipped, slot, before, table, indirection, capacity, pages, sinks, c_slot,
            c_place, t_slot, i_batch, i_beam, beams, TOKENS, PAGE, CYCLIC, WINDOW,
        )  # fmt: skip
        shown = inside[:, None] & (d < D)[None, :]
        key = numbers(tl.load(keys + rows[:, None] + d[None, :], mask=shown, other=0.0), query.dtype)
        if words is not None:
            there = words + (head * c_head + c_part) // 4 + (rows // 4)[:, None] + w[None, :]
            four = tl.load(there, mask=inside[:, None] & (w < D // 4)[None, :], other=0)
        else:
            value = numbers(tl.load(keys + c_part + rows[:, None] + d[None, :], mask=shown, other=0.0), query.dtype)
        logits = tl.dot(query, tl.trans(key), input_precision=PRECISION) * logit_scale[:, None]
        if SOFTCAP:
            bent = logits / softcap
            logits = softcap * LOG2E * (1.0 - 2.0 / (tl.exp(2.0 * bent) + 1.0))
        if slopes is not None:
            logits += slope[:, None] * token[None, :].to(tl.float32)
        seen = token[None, :] <= place[:, None]
        if prefixes is not None:
            seen = seen | (token < tl.load(prefixes + b))[None, :]
        seen = seen & inside[None, :]
        if WINDOW:
            seen = seen & ((token[None, :] > place[:, None] - window) | (token[None, :] < sinks))
        logits = tl.where(seen, logits, float("-inf"))
        best = tl.maximum(top, tl.max(logits, 1))
        level = level_of(best, True)
        chances, keep = tl.exp2(logits - level[:, None]), tl.exp2(top - level)
        if words is not None:
            weight = weight * keep + tl.sum(chances, 1)
            p = chances.to(tl.float16)
            v_0, v_1, v_2, v_3 = halves_of_words(four, cache.dtype.element_ty == tl.int8)
            acc_0 = tl.dot(p, v_0, acc_0 * keep[:, None])
            acc_1 = tl.dot(p, v_1, acc_1 * keep[:, None])
            acc_2 = tl.dot(p, v_2, acc_2 * keep[:, None])
            acc_3 = tl.dot(p, v_3, acc_3 * keep[:, None])
        else:
            weight, acc = add_tile(chances, keep, weight, acc, value, PRECISION)
        top = best
        rows = ahead
    if words is not None:
        acc = tl.join(tl.join(acc_0, acc_2), tl.join(acc_1, acc_3)).reshape(ROWS, BD)
    if value_scale is not None:
        acc = acc * tl.load(value_scale + head * scale_step)
    if not SHARED:
        result = acc * (1.0 / tl.where(weight == 0.0, 1.0, weight))[:, None]
        written = real
        if EACH > 0:  # rows of padding are zeros
            written = mine & (query_of < EACH)
            result = tl.where(real[:, None], result, 0.0)
        tl.store(
            out + at.to(tl.int64)[:, None] * out_row + lane[:, None] * out_head + d[None, :],
            result.to(out.dtype.element_ty), mask=written[:, None] & (d < D)[None, :],
        )  # fmt: skip
    else:
        kept = program.to(tl.int64) * ROWS + row
        tl.store(sums + kept[:, None] * D + d[None, :], acc, mask=real[:, None] & (d < D)[None, :])
        tl.store(levels + kept * 2, top, mask=real)
        tl.store(levels + kept * 2 + 1, weight, mask=real)


@triton.jit
def join_shares(
    sums, levels, out, first, queries, out_row, out_head,
    shares, blocks, EACH: tl.constexpr, BS: tl.constexpr, MOST: tl.constexpr, GROUP: tl.constexpr,
    HEADS: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, ROWS: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program: one query of one head of one sequence, over the BS >= `shares` shares of its tokens."""
    program = tl.program_id(0)
    row = program % (MOST * GROUP)
    whole = program // (MOST * GROUP)
    head = whole % HEADS
    block = blocks - 1 - whole // HEADS % blocks
    b = whole // HEADS // blocks
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    count = EACH
    if queries is not None:
        count = tl.load(queries + b)
    query_of = block * MOST + row // GROUP
    if query_of >= tl.maximum(count, EACH):
        return
    share = tl.arange(0, BS)
    d = tl.arange(0, BD)
    mine = (whole.to(tl.int64) * shares + share) * ROWS + row
    there = share < shares
    top = tl.load(levels + mine * 2, mask=there, other=float("-inf"))
    weight = tl.load(levels + mine * 2 + 1, mask=there, other=0.0)
    best = tl.max(top, 0)
    factor = tl.exp2(top - tl.where(best == float("-inf"), 0.0, best))
    part = tl.load(sums + mine[:, None] * D + d[None, :], mask=there[:, None] & (d < D)[None, :], other=0.0)
    total = tl.sum(weight * factor, 0)
    result = tl.sum(part * factor[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    result = tl.where(query_of < count, result, 0.0)  # rows of padding are zeros
    at = ((b * EACH if EACH > 0 else tl.load(first + b)) + query_of).to(tl.int64)
    lane = head * GROUP + row % GROUP
    tl.store(out + at * out_row + lane * out_head + d, result.to(out.dtype.element_ty), mask=d < D)
