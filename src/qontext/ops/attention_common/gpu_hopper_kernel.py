"""Device code of full attention for Hopper: keys and values of a head stay in shared memory for all its queries.

    context = softmax(scale * Q K^T, over the first keys of a sequence) V

A program owns one head of one sequence. It asks for all keys and values at once and then runs over its tiles of 64
queries: every number is read from memory once, and a tile that holds no query is never begun. Within a tile the product
with the next keys runs on the matrix units while the softmax of the present ones is computed.

Sums and softmax in float32, in base 2 with the scale folded in. Tiles are 64 keys; the last, partly filled one comes
first, so that all others need no mask.
"""

# mypy: ignore-errors

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    async_copy,
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..eight_bits_kernel import in_eight_bits
from ..gluon_names import copy_in, thread_barrier

TILE = gl.constexpr(64)
THREADS = gl.constexpr(128)


@gluon.jit
def sequence(b, bounds, length):
    """The first row and the number of rows of sequence b: from `bounds` `[B+1]` when packed, else (0, length)."""
    if bounds is None:
        first = gl.to_tensor(0)
        count = gl.to_tensor(length)
    else:
        first = gl.load(bounds + b)
        count = gl.load(bounds + b + 1) - first
    return first, count


@gluon.jit
def fetch(place, at, row_stride, count, D: gl.constexpr):
    """Starts the copy of rows `[TILE, D]` to shared memory, zeros for those from `count` on."""
    across: gl.constexpr = D // 8 if D <= 64 else 8
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [32 // across, across], [4, 1], [1, 0])
    row = gl.arange(0, TILE, layout=gl.SliceLayout(1, layout))
    d = gl.arange(0, D, layout=gl.SliceLayout(0, layout))
    pointers = at + row[:, None] * row_stride + d[None, :]
    inside = (row < count)[:, None] & (d < D)[None, :]
    copy_in(place, pointers, mask=inside)


@gluon.jit
def resident_attention(
    q, k, v, out, held_factor, held_inverse, held_zero, bounds_q, bounds_k, counts, rows, keys_each, scale,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head, out_batch, out_row, out_head,
    HEADS: gl.constexpr, GROUPS: gl.constexpr, D: gl.constexpr, TILES: gl.constexpr, SHARE: gl.constexpr,
    OVERLAP: gl.constexpr,
):  # fmt: skip
    """One program: a SHARE-th part of the queries of one head of one sequence, whose keys TILES have room for."""
    program = gl.program_id(0)
    part = program % SHARE
    head = program // SHARE % HEADS
    b = (program // SHARE // HEADS).to(gl.int64)
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    first, count = sequence(b, bounds_q, rows)
    first_key, valid = sequence(b, bounds_k, keys_each)
    start = part * TILE
    if start >= count:
        return
    if counts is not None:
        valid = gl.minimum(gl.load(counts + b).to(gl.int32), valid)
    dtype: gl.constexpr = q.dtype.element_ty
    shared: gl.constexpr = gl.NVMMASharedLayout(
        swizzle_byte_width=128 if D >= 64 else 2 * D, element_bitwidth=16, rank=2
    )
    keys = gl.allocate_shared_memory(dtype, [TILES, TILE, D], shared)
    values = gl.allocate_shared_memory(dtype, [TILES, TILE, D], shared)
    arrived = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    near = arrived.index(0)  # the last, partly filled tile
    rest = arrived.index(1)
    mbarrier.init(near, count=THREADS)
    mbarrier.init(rest, count=THREADS)
    thread_barrier()

    from_k = k + b * k_batch + first_key.to(gl.int64) * k_row + head // GROUPS * k_head
    from_v = v + b * v_batch + first_key.to(gl.int64) * v_row + head // GROUPS * v_head
    last = gl.maximum((valid + TILE - 1) // TILE - 1, 0)
    skip = last * TILE
    fetch(keys.index(last), from_k + skip.to(gl.int64) * k_row, k_row, valid - skip, D)
    fetch(values.index(last), from_v + skip.to(gl.int64) * v_row, v_row, valid - skip, D)
    async_copy.mbarrier_arrive(near, increment_count=False)
    for tile in range(last):
        skip = tile * TILE
        fetch(keys.index(tile), from_k + skip.to(gl.int64) * k_row, k_row, valid - skip, D)
        fetch(values.index(tile), from_v + skip.to(gl.int64) * v_row, v_row, valid - skip, D)
    async_copy.mbarrier_arrive(rest, increment_count=False)

    from_q = q + b * q_batch + head * q_head
    to = out + b * out_batch + head * out_head
    logit_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE, 16])
    acc_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    query_layout: gl.constexpr = gl.DotOperandLayout(0, logit_layout, 2)
    weight_layout: gl.constexpr = gl.DotOperandLayout(0, acc_layout, 2)
    row = gl.arange(0, TILE, layout=gl.SliceLayout(1, query_layout))
    d = gl.arange(0, D, layout=gl.SliceLayout(0, query_layout))
    to_row = gl.arange(0, TILE, layout=gl.SliceLayout(1, acc_layout))
    to_d = gl.arange(0, D, layout=gl.SliceLayout(0, acc_layout))
    column = gl.arange(0, TILE, layout=gl.SliceLayout(0, logit_layout))
    fill = valid - last * TILE
    blank = gl.zeros([TILE, TILE], gl.float32, logit_layout)
    while start < count:
        at = from_q + (first + start).to(gl.int64) * q_row
        query = gl.load(at + row[:, None] * q_row + d[None, :], mask=(start + row < count)[:, None], other=0.0)
        mbarrier.wait(near, 0)
        fence_async_shared()
        logits = warpgroup_mma(query, keys.index(last).permute((1, 0)), blank, use_acc=False, is_async=True)
        logits = warpgroup_mma_wait(0, deps=[logits])
        logits = gl.where((column < fill)[None, :], logits, float("-inf"))
        top = gl.max(logits, 1)
        level = gl.where(top == float("-inf"), 0.0, top) * scale
        weights = gl.exp2(logits * scale - level[:, None])
        total = gl.sum(weights, 1)
        held = gl.convert_layout(weights.to(dtype), weight_layout)
        acc = gl.zeros([TILE, D], gl.float32, acc_layout)
        before = last
        mbarrier.wait(rest, 0)
        fence_async_shared()
        for tile in range(last):
            logits = warpgroup_mma(query, keys.index(tile).permute((1, 0)), blank, use_acc=False, is_async=True)
            acc = warpgroup_mma(held, values.index(before), acc, is_async=True)
            logits = warpgroup_mma_wait(1, deps=[logits])
            best = gl.maximum(top, gl.max(logits, 1))
            level = best * scale
            weights = gl.exp2(logits * scale - level[:, None])
            keep = gl.exp2(top * scale - level)
            total = total * keep + gl.sum(weights, 1)
            # Passed at once; without a branch here the assembler moves the next wait up, before the softmax.
            mbarrier.wait(rest, 0)
            acc = warpgroup_mma_wait(0, deps=[acc])
            acc = acc * gl.convert_layout(keep, gl.SliceLayout(1, acc_layout))[:, None]
            held = gl.convert_layout(weights.to(dtype), weight_layout)
            top = best
            before = tile
        acc = warpgroup_mma(held, values.index(before), acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[acc])
        share = 1.0 / gl.where(total == 0.0, 1.0, total)
        acc = acc * gl.convert_layout(share, gl.SliceLayout(1, acc_layout))[:, None]
        places = to + (first + start).to(gl.int64) * out_row + to_row[:, None] * out_row + to_d[None, :]
        if held_factor is not None:
            acc *= gl.load(held_factor + head * D + to_d)[None, :]
        if held_inverse is not None:
            context = in_eight_bits(acc, held_inverse, held_zero, out.dtype.element_ty)
        else:
            context = acc.to(out.dtype.element_ty)
        gl.store(places, context, mask=(start + to_row < count)[:, None])
        start += SHARE * TILE
