"""Device code of full attention for Hopper by programs that stay: one warp copies, four teams of warps compute.

    context = softmax(scale * Q K^T, over the first keys of a sequence) V

A program owns a multiprocessor and takes one unit of work after the other: up to TEAMS tiles of 64 queries of one
head, a tile for each team of four warps. The copying warp runs ahead: it fills a ring of 2 ** SHIFT tiles of 64 keys
and their values through tensor maps, as far as there is room, whichever head they belong to. A tile is filled again
when every team is through with it. Teams take tiles of queries in turns, across units, so that none waits
at the end of one.

Tensor maps of packed rows would read, and write, rows of the next sequence. Theirs have two axes in front that shift
the first row (the way of `triton.tools.ragged_tma`), so that the end of a sequence is the end of an axis: rows beyond
it arrive as zeros and are not stored. No value of a neighbour meets a weight, not even a weight of zero.

Sums and softmax in float32, in base 2 with the scale folded in. The last, partly filled tile of keys comes first, as a
narrow one where few are left, so that all others need no mask. Each thread adds up the weights that it computed; the
four that share a row meet at the end.
"""

# mypy: ignore-errors

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..eight_bits_kernel import in_eight_bits
from ..gluon_names import load_tile, store_tile, thread_barrier
from .gpu_hopper_kernel import TILE
from .gpu_units_kernel import ENTRY, TEAMS

FAR_ROW = gl.constexpr(1 << 30)  # where the rows of every sequence end on the axis of rows


@gluon.jit
def look_up(turn, table, units, HEADS: gl.constexpr):
    """The unit that a program takes in a turn, forwards and backwards, which evens out the work: head, end of the
    sequence's queries, queries up to there, tiles of them, end of its keys, keys; no tiles after the last unit."""
    program = gl.program_id(0)
    programs = gl.num_programs(0)
    number = turn * programs + gl.where(turn % 2 == 0, program, programs - 1 - program)
    there = number < units
    entry = table + (number // HEADS + 1) * ENTRY
    end = gl.load(entry, mask=there, other=0)
    left = gl.load(entry + 1, mask=there, other=0)
    tiles = gl.load(entry + 2, mask=there, other=0)
    key_end = gl.load(entry + 3, mask=there, other=0)
    valid = gl.load(entry + 4, mask=there, other=0)
    return number % HEADS, end, left, tiles, key_end, valid


@gluon.jit
def turns_of(units):
    """Turns that a program has at most; the last one may lie beyond the units."""
    return (units + gl.num_programs(0) - 1) // gl.num_programs(0)


@gluon.jit
def tiles_of(valid):
    """Tiles of keys, one at least: a query without keys has zeros to store."""
    return gl.maximum((valid + TILE - 1) // TILE, 1)


@gluon.jit
def produce(
    maps, strides, table, units, ring,
    HEADS: gl.constexpr, GROUPS: gl.constexpr, D: gl.constexpr, SHIFT: gl.constexpr, ASKED: gl.constexpr,
):  # fmt: skip
    """One warp: copies queries, keys and values of every unit of this program, queries to 2 ** ASKED places."""
    q_map, k_map, v_map, _ = maps
    q_head, k_head, v_head, _ = strides
    queries, keys, values, _, asked, taken, full, empty = ring
    TILE_BYTES: gl.constexpr = TILE * D * q_map.dtype.primitive_bitwidth // 8
    handed = gl.to_tensor(0)  # tiles of queries so far
    filled = gl.to_tensor(0)  # tiles of keys so far
    for turn in range(turns_of(units)):
        head, end, left, tiles, key_end, valid = look_up(turn, table, units, HEADS)
        for i in range(tiles):
            place = handed & (1 << ASKED) - 1
            mbarrier.wait(taken.index(place), (handed >> ASKED) & 1 ^ 1)
            mbarrier.expect(asked.index(place), TILE_BYTES)
            at = [FAR_ROW, end, FAR_ROW - left + i * TILE, head * q_head]
            load_tile(q_map, at, asked.index(place), queries.index(place))
            handed += 1
        if tiles > 0:
            key_tiles = tiles_of(valid)
            for j in range(key_tiles):
                skip = gl.where(j == 0, key_tiles - 1, j - 1) * TILE
                slot = filled & (1 << SHIFT) - 1
                mbarrier.wait(empty.index(slot), (filled >> SHIFT) & 1 ^ 1)
                mbarrier.expect(full.index(slot), 2 * TILE_BYTES)
                at = [FAR_ROW, key_end, FAR_ROW - valid + skip, head // GROUPS * k_head]
                load_tile(k_map, at, full.index(slot), keys.index(slot))
                at = [FAR_ROW, key_end, FAR_ROW - valid + skip, head // GROUPS * v_head]
                load_tile(v_map, at, full.index(slot), values.index(slot))
                filled += 1


@gluon.jit
def summed(weights, WIDTH: gl.constexpr):
    """The sums `[TILE, 4]` of what each thread holds of weights `[TILE, WIDTH]`."""
    return gl.sum(gl.sum(weights.reshape([TILE, WIDTH // 8, 4, 2]), 1), 2)


@gluon.jit
def begin(query, keys, values, slot, fill, scale, WIDTH: gl.constexpr, D: gl.constexpr):
    """The first tile, of which `fill` keys count, WIDTH at most: maxima `[TILE]`, sums `[TILE, 4]`, context."""
    dtype: gl.constexpr = query.dtype
    whole: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE, 16])
    narrow: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDTH, 16])
    acc_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    sum_layout: gl.constexpr = summed(gl.zeros([TILE, TILE], gl.float32, whole), TILE).type.layout
    key = keys.index(slot).reshape([TILE, D]).slice(0, WIDTH)
    value = values.index(slot).reshape([TILE, D]).slice(0, WIDTH)
    column = gl.arange(0, WIDTH, layout=gl.SliceLayout(0, narrow))
    blank = gl.zeros([TILE, WIDTH], gl.float32, narrow)
    held = gl.convert_layout(query, gl.DotOperandLayout(0, narrow, 2))
    logits = warpgroup_mma(held, key.permute((1, 0)), blank, use_acc=False, is_async=True)
    logits = warpgroup_mma_wait(0, deps=[logits])
    logits = gl.where((column < fill)[None, :], logits, float("-inf"))
    top = gl.max(logits, 1)
    level = gl.where(top == float("-inf"), 0.0, top) * scale
    weights = gl.exp2(logits * scale - level[:, None])
    total = summed(weights, WIDTH)
    held = gl.convert_layout(weights.to(dtype), gl.DotOperandLayout(0, acc_layout, 2))
    acc = gl.zeros([TILE, D], gl.float32, acc_layout)
    acc = warpgroup_mma(held, value, acc, use_acc=False, is_async=True)
    acc = warpgroup_mma_wait(0, deps=[acc])
    return gl.convert_layout(top, gl.SliceLayout(1, whole)), gl.convert_layout(total, sum_layout), acc


@gluon.jit
def hand_out(acc, share, held_as, head, out_map, at, result, D: gl.constexpr):
    """Stores a tile of the context, sums times the `share` of each row, by way of `result` in shared memory."""
    held_factor, held_inverse, held_zero = held_as
    layout: gl.constexpr = acc.type.layout
    acc = acc * gl.convert_layout(share, gl.SliceLayout(1, layout))[:, None]
    if held_factor is not None:
        column = gl.arange(0, D, layout=gl.SliceLayout(0, layout))
        acc *= gl.load(held_factor + head * D + column)[None, :]
    if held_inverse is not None:
        context = in_eight_bits(acc, held_inverse, held_zero, out_map.dtype)
    else:
        context = acc.to(out_map.dtype)
    tma.store_wait(0)
    result.reshape([TILE, D]).store(context)
    fence_async_shared()
    store_tile(out_map, at, result)


@gluon.jit
def let_pass(count, filled, full, empty, SHIFT: gl.constexpr):
    """A team without a part in a unit lets its `count` tiles of keys pass: one that ran ahead could not tell, from a
    phase that is one bit, the fill it waits for from the fill two rounds of the ring before."""
    for j in range(count):
        slot = filled + j & (1 << SHIFT) - 1
        mbarrier.wait(full.index(slot), (filled + j >> SHIFT) & 1)
        mbarrier.arrive(empty.index(slot), count=1)


@gluon.jit
def compute(
    team, maps, held_as, strides, table, units, ring, scale, zero,
    HEADS: gl.constexpr, D: gl.constexpr, SHIFT: gl.constexpr,
):  # fmt: skip
    """One team: its tiles of queries, counted over all units of this program."""
    q_map, _, _, out_map = maps
    _, _, _, out_head = strides
    queries, keys, values, results, asked, taken, full, empty = ring
    dtype: gl.constexpr = q_map.dtype
    logit_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE, 16])
    acc_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    weight_layout: gl.constexpr = gl.DotOperandLayout(0, acc_layout, 2)
    blank = gl.zeros([TILE, TILE], gl.float32, logit_layout)
    result = results.index(team)
    handed = gl.to_tensor(0)
    filled = gl.to_tensor(0)
    for turn in range(turns_of(units)):
        head, end, left, tiles, _, valid = look_up(turn, table, units, HEADS)
        mine = (team - handed) & (TEAMS - 1)
        key_tiles = tiles_of(valid)
        if mine < tiles:
            mbarrier.wait(asked.index(team), (handed + mine >> 2) & 1)
            query = queries.index(team).reshape([TILE, D]).load(gl.DotOperandLayout(0, logit_layout, 2))
            fence_async_shared()  # the next copy into this place comes after these reads, of another kind
            thread_barrier()
            mbarrier.arrive(taken.index(team), count=1)
            slot = filled & (1 << SHIFT) - 1
            mbarrier.wait(full.index(slot), (filled >> SHIFT) & 1)
            fill = valid - (key_tiles - 1) * TILE
            # `zero` is 0, which the assembler cannot know: where branches share part of the computation of an address,
            # that of CUDA 12.8 does it in one of them alone.
            if fill <= 16:
                top, total, acc = begin(query, keys, values, slot + zero, fill, scale, 16, D)
            elif fill <= 32:
                top, total, acc = begin(query, keys, values, slot + 2 * zero, fill, scale, 32, D)
            else:
                top, total, acc = begin(query, keys, values, slot, fill, scale, TILE, D)
            mbarrier.arrive(empty.index(slot), count=1)
            for j in range(1, key_tiles):
                place = filled + j
                slot = place & (1 << SHIFT) - 1
                mbarrier.wait(full.index(slot), (place >> SHIFT) & 1)
                key = keys.index(slot).reshape([TILE, D]).permute((1, 0))
                logits = warpgroup_mma(query, key, blank, use_acc=False, is_async=True)
                logits = warpgroup_mma_wait(0, deps=[logits])
                best = gl.maximum(top, gl.max(logits, 1))
                level = best * scale
                weights = gl.exp2(logits * scale - level[:, None])
                keep = gl.exp2(top * scale - level)
                total = total * gl.convert_layout(keep, gl.SliceLayout(1, total.type.layout))[:, None]
                total += summed(weights, TILE)
                acc = acc * gl.convert_layout(keep, gl.SliceLayout(1, acc_layout))[:, None]
                held = gl.convert_layout(weights.to(dtype), weight_layout)
                acc = warpgroup_mma(held, values.index(slot).reshape([TILE, D]), acc, is_async=True)
                acc = warpgroup_mma_wait(0, deps=[acc])
                mbarrier.arrive(empty.index(slot), count=1)
                top = best
            total = gl.sum(total, 1)
            share = 1.0 / gl.where(total == 0.0, 1.0, total)
            at = [FAR_ROW, end, FAR_ROW - left + mine * TILE, head * out_head]
            hand_out(acc, share, held_as, head, out_map, at, result, D)
        else:
            let_pass(gl.where(tiles > 0, key_tiles, 0), filled, full, empty, SHIFT)
        handed += tiles
        filled += gl.where(tiles > 0, key_tiles, 0)
    tma.store_wait(0)


@gluon.jit
def attention_by_teams(
    q_map, k_map, v_map, out_map, held_factor, held_inverse, held_zero, table, scale, zero,
    q_head, k_head, v_head, out_head,
    HEADS: gl.constexpr, GROUPS: gl.constexpr, D: gl.constexpr, SHIFT: gl.constexpr, OVERLAP: gl.constexpr,
):  # fmt: skip
    """Maps with blocks `[1, 1, TILE, D]`; `table` from `list_units`; zero: 0."""
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    dtype: gl.constexpr = q_map.dtype
    queries = gl.allocate_shared_memory(dtype, [TEAMS, 1, 1, TILE, D], q_map.layout)
    keys = gl.allocate_shared_memory(dtype, [1 << SHIFT, 1, 1, TILE, D], k_map.layout)
    values = gl.allocate_shared_memory(dtype, [1 << SHIFT, 1, 1, TILE, D], v_map.layout)
    results = gl.allocate_shared_memory(out_map.dtype, [TEAMS, 1, 1, TILE, D], out_map.layout)
    asked = gl.allocate_shared_memory(gl.int64, [TEAMS, 1], mbarrier.MBarrierLayout())
    taken = gl.allocate_shared_memory(gl.int64, [TEAMS, 1], mbarrier.MBarrierLayout())
    full = gl.allocate_shared_memory(gl.int64, [1 << SHIFT, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [1 << SHIFT, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(TEAMS):
        mbarrier.init(asked.index(i), count=1)
        mbarrier.init(taken.index(i), count=1)
    for i in gl.static_range(1 << SHIFT):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=TEAMS)
    fence_async_shared()
    thread_barrier()
    units = gl.load(table) * HEADS
    maps = (q_map, k_map, v_map, out_map)
    held_as = (held_factor, held_inverse, held_zero)
    strides = (q_head, k_head, v_head, out_head)
    ring = (queries, keys, values, results, asked, taken, full, empty)
    gl.warp_specialize(
        [
            (compute, (0, maps, held_as, strides, table, units, ring, scale, zero, HEADS, D, SHIFT)),
            (compute, (1, maps, held_as, strides, table, units, ring, scale, zero, HEADS, D, SHIFT)),
            (compute, (2, maps, held_as, strides, table, units, ring, scale, zero, HEADS, D, SHIFT)),
            (compute, (3, maps, held_as, strides, table, units, ring, scale, zero, HEADS, D, SHIFT)),
            (produce, (maps, strides, table, units, ring, HEADS, GROUPS, D, SHIFT, 2)),
        ],
        [4, 4, 4, 1],
        [112, 112, 112, 32],
    )
