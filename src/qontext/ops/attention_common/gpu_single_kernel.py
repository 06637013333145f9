"""Device code of full attention for Hopper over sequences of up to KEYS tokens, whose keys are one tile.

    context = softmax(scale * Q K^T, over the first keys of a sequence) V

A program owns a multiprocessor and takes one head of a sequence after the other. One warp copies queries, keys and
values of whole heads into a ring of STAGES through tensor maps, as far ahead as there is room; three teams of four
warps take tiles of 64 queries in turns. With all keys of a row at hand the softmax needs one maximum and one sum.

Tensor maps are those of `gpu_teams_kernel.py`: rows beyond a sequence arrive as zeros and are not stored.
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

from ..gluon_names import load_tile, thread_barrier
from .gpu_hopper_kernel import TILE
from .gpu_teams_kernel import FAR_ROW, hand_out
from .gpu_units_kernel import ends_of

KEYS = gl.constexpr(128)
TEAMS = gl.constexpr(3)


@gluon.jit
def unit_of(number, bounds_q, bounds_k, counts, rows, keys, HEADS: gl.constexpr):
    """Head, end of the queries, queries, end of the keys that count, and their number. The sequences written last by
    the kernel in front come first: they may still be in the cache."""
    end, count, key_end, valid = ends_of(number // HEADS, bounds_q, bounds_k, counts, rows, keys)
    return number % HEADS, end, count, key_end, valid


@gluon.jit
def produce(
    maps, strides, bounds, sizes, ring, HEADS: gl.constexpr, GROUPS: gl.constexpr, D: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    """One warp: queries, keys and values of every head of this program."""
    q_map, k_map, v_map, _ = maps
    q_head, k_head, v_head, _ = strides
    bounds_q, bounds_k, counts = bounds
    units, rows, keys_each = sizes
    queries, keys, values, _, full, empty = ring
    filled = gl.to_tensor(0)
    for number in range(gl.program_id(0), units, gl.num_programs(0)):
        head, end, count, key_end, valid = unit_of(
            units - 1 - number, bounds_q, bounds_k, counts, rows, keys_each, HEADS
        )
        slot = filled % STAGES
        mbarrier.wait(empty.index(slot), filled // STAGES & 1 ^ 1)
        mbarrier.expect(full.index(slot), (2 * TILE + 2 * KEYS) * D * 2)
        at = [FAR_ROW, key_end, FAR_ROW - valid, head // GROUPS * k_head]
        load_tile(k_map, at, full.index(slot), keys.index(slot))
        for half in gl.static_range(2):
            at = [FAR_ROW, end, FAR_ROW - count + half * TILE, head * q_head]
            load_tile(q_map, at, full.index(slot), queries.index(2 * slot + half))
        at = [FAR_ROW, key_end, FAR_ROW - valid, head // GROUPS * v_head]
        load_tile(v_map, at, full.index(slot), values.index(slot))
        filled += 1


@gluon.jit
def compute(
    team, maps, held_as, strides, bounds, sizes, ring, scale,
    HEADS: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """One team: every third tile of 64 queries."""
    q_map, _, _, out_map = maps
    _, _, _, out_head = strides
    bounds_q, bounds_k, counts = bounds
    units, rows, keys_each = sizes
    queries, keys, values, results, full, empty = ring
    dtype: gl.constexpr = q_map.dtype
    logit_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, KEYS, 16])
    acc_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    column = gl.arange(0, KEYS, layout=gl.SliceLayout(0, logit_layout))
    blank = gl.zeros([TILE, KEYS], gl.float32, logit_layout)
    empty_acc = gl.zeros([TILE, D], gl.float32, acc_layout)
    result = results.index(team)
    mine = (units - gl.program_id(0) + gl.num_programs(0) - 1) // gl.num_programs(0)
    for tile in range(team, 2 * mine, TEAMS):
        turn = tile // 2
        half = tile % 2
        number = units - 1 - gl.program_id(0) - turn * gl.num_programs(0)
        head, end, count, _, valid = unit_of(number, bounds_q, bounds_k, counts, rows, keys_each, HEADS)
        slot = turn % STAGES
        mbarrier.wait(full.index(slot), turn // STAGES & 1)
        query = queries.index(2 * slot + half).reshape([TILE, D])
        key = keys.index(slot).reshape([KEYS, D]).permute((1, 0))
        logits = warpgroup_mma(query, key, blank, use_acc=False, is_async=True)
        logits = warpgroup_mma_wait(0, deps=[logits])
        logits = gl.where((column < valid)[None, :], logits, float("-inf"))
        top = gl.max(logits, 1)
        level = gl.where(top == float("-inf"), 0.0, top) * scale
        weights = gl.exp2(logits * scale - level[:, None])
        total = gl.sum(weights, 1)
        held = gl.convert_layout(weights.to(dtype), gl.DotOperandLayout(0, acc_layout, 2))
        acc = warpgroup_mma(held, values.index(slot).reshape([KEYS, D]), empty_acc, use_acc=False, is_async=True)
        acc = warpgroup_mma_wait(0, deps=[acc])
        mbarrier.arrive(empty.index(slot), count=1)
        share = 1.0 / gl.where(total == 0.0, 1.0, total)
        at = [FAR_ROW, end, FAR_ROW - count + half * TILE, head * out_head]
        hand_out(acc, share, held_as, head, out_map, at, result, D)
    tma.store_wait(0)


@gluon.jit
def attention_in_one(
    q_map, k_map, v_map, out_map, held_factor, held_inverse, held_zero, bounds_q, bounds_k, counts,
    units, rows, keys_each, scale, q_head, k_head, v_head, out_head,
    HEADS: gl.constexpr, GROUPS: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, OVERLAP: gl.constexpr,
):  # fmt: skip
    """Maps with blocks `[1, 1, TILE, D]` of queries and context, `[1, 1, KEYS, D]` of keys and values."""
    dtype: gl.constexpr = q_map.dtype
    queries = gl.allocate_shared_memory(dtype, [2 * STAGES, 1, 1, TILE, D], q_map.layout)
    keys = gl.allocate_shared_memory(dtype, [STAGES, 1, 1, KEYS, D], k_map.layout)
    values = gl.allocate_shared_memory(dtype, [STAGES, 1, 1, KEYS, D], v_map.layout)
    results = gl.allocate_shared_memory(out_map.dtype, [TEAMS, 1, 1, TILE, D], out_map.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STAGES):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=2)
    fence_async_shared()
    thread_barrier()
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    maps = (q_map, k_map, v_map, out_map)
    held_as = (held_factor, held_inverse, held_zero)
    strides = (q_head, k_head, v_head, out_head)
    bounds = (bounds_q, bounds_k, counts)
    sizes = (units, rows, keys_each)
    ring = (queries, keys, values, results, full, empty)
    gl.warp_specialize(
        [
            (compute, (0, maps, held_as, strides, bounds, sizes, ring, scale, HEADS, D, STAGES)),
            (compute, (1, maps, held_as, strides, bounds, sizes, ring, scale, HEADS, D, STAGES)),
            (compute, (2, maps, held_as, strides, bounds, sizes, ring, scale, HEADS, D, STAGES)),
            (produce, (maps, strides, bounds, sizes, ring, HEADS, GROUPS, D, STAGES)),
        ],
        [4, 4, 1],
        [152, 152, 24],
    )
