"""Device code of full attention in float8_e4m3 for Hopper, by programs that stay: the kernel of teams of warps
(`attention_common/gpu_teams_kernel.py`) for queries, keys, values and probabilities in eight bits.

What differs: the matrix units take eight bits only where what is summed over lies side by side, which for the second
product are the keys. One more team turns every tile of values round, once for all tiles of queries that meet it, while
the others compute. It leaves keys in the order in which a thread has the weights after the first product, so that these
become operands of the second without passing from thread to thread. Queries stay in shared memory: held in registers
over the loop, the assembler of CUDA 12.8 gives their registers away.

Weights of a row are counted from a power of two above its largest logit so far, as `gpu_fp8_kernel.py` says.
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

from ..attention_common.gpu_hopper_kernel import TILE
from ..attention_common.gpu_teams_kernel import (
    FAR_ROW,
    hand_out,
    let_pass,
    look_up,
    produce,
    summed,
    tiles_of,
    turns_of,
)
from ..attention_common.gpu_units_kernel import TEAMS
from ..gluon_names import thread_barrier

TOP = gl.constexpr(8.0)  # weights of a row end between 2^7 and 2^8
ASKED = gl.constexpr(3)  # 2 ** 3 tiles of queries: those that teams work on, and the next ones


@gluon.jit
def turn_round(table, units, values, turned, full, ready, HEADS: gl.constexpr, D: gl.constexpr, SHIFT: gl.constexpr):
    """One team: values `[keys, D]` of every tile become `[D, keys]`.

    A thread takes keys 0, 1, 8, 9 from where its lane says: those whose weights it has behind a product.
    """
    further: gl.constexpr = [[0, 32]] if D == 64 else []
    layout: gl.constexpr = gl.DistributedLinearLayout(
        [[0, 1], [0, 2], [1, 0], [8, 0]] + further,  # noqa: RUF005 - the compiler knows no star
        [[0, 4], [0, 8], [2, 0], [4, 0], [16, 0]],
        [[32, 0], [0, 16]],
        [],
        [TILE, D],
    )
    filled = gl.to_tensor(0)
    for turn in range(turns_of(units)):
        _, _, _, tiles, _, valid = look_up(turn, table, units, HEADS)
        if tiles > 0:
            for _j in range(tiles_of(valid)):
                slot = filled & (1 << SHIFT) - 1
                mbarrier.wait(full.index(slot), (filled >> SHIFT) & 1)
                value = values.index(slot).reshape([TILE, D]).load(layout)
                value = value.reshape([2, 2, 2, 4, 2, D]).permute((0, 1, 3, 2, 4, 5)).reshape([TILE, D])
                turned.index(slot).store(value.permute((1, 0)))
                fence_async_shared()
                thread_barrier()
                mbarrier.arrive(ready.index(slot), count=1)
                filled += 1


@gluon.jit
def compute(
    team, maps, table, units, ring, turned, ready, scale, factor,
    out_head, HEADS: gl.constexpr, D: gl.constexpr, SHIFT: gl.constexpr,
):  # fmt: skip
    """One team: its tiles of queries, counted over all units of this program."""
    q_map, _, _, out_map = maps
    queries, keys, _values, results, asked, taken, full, empty = ring
    dtype: gl.constexpr = q_map.dtype
    logit_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE, 32])
    acc_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 32])
    sum_layout: gl.constexpr = summed(gl.zeros([TILE, TILE], gl.float32, logit_layout), TILE).type.layout
    blank = gl.zeros([TILE, TILE], gl.float32, logit_layout)
    column = gl.arange(0, TILE, layout=gl.SliceLayout(0, logit_layout))
    result = results.index(team)
    handed = gl.to_tensor(0)
    filled = gl.to_tensor(0)
    for turn in range(turns_of(units)):
        head, end, left, tiles, _key_end, valid = look_up(turn, table, units, HEADS)
        mine = (team - handed) & (TEAMS - 1)
        key_tiles = tiles_of(valid)
        if mine < tiles:
            own = handed + mine & (1 << ASKED) - 1
            query = queries.index(own).reshape([TILE, D])
            mbarrier.wait(asked.index(own), (handed + mine >> ASKED) & 1)
            level = gl.full([TILE], float("-inf"), gl.float32, gl.SliceLayout(1, logit_layout))
            total = gl.zeros([TILE, 4], gl.float32, sum_layout)
            acc = gl.zeros([TILE, D], gl.float32, acc_layout)
            for j in range(key_tiles):
                place = filled + j
                slot = place & (1 << SHIFT) - 1
                mbarrier.wait(full.index(slot), (place >> SHIFT) & 1)
                key = keys.index(slot).reshape([TILE, D]).permute((1, 0))
                logits = warpgroup_mma(query, key, blank, use_acc=False, is_async=True)
                logits = warpgroup_mma_wait(0, deps=[logits])
                if j == 0:  # the last, partly filled tile
                    logits = gl.where((column < valid - (key_tiles - 1) * TILE)[None, :], logits, float("-inf"))
                best = gl.maximum(level, gl.ceil(gl.max(logits, 1) * scale))
                origin = gl.where(best == float("-inf"), 0.0, best)
                weights = gl.exp2(logits * scale - (origin - TOP)[:, None])
                keep = gl.exp2(level - origin)
                total = total * gl.convert_layout(keep, gl.SliceLayout(1, sum_layout))[:, None]
                total += summed(weights, TILE)
                acc = acc * gl.convert_layout(keep, gl.SliceLayout(1, acc_layout))[:, None]
                held = weights.to(dtype).reshape([TILE, 2, 2, 2, 4, 2]).permute((0, 1, 2, 4, 3, 5))
                held = gl.convert_layout(held.reshape([TILE, TILE]), gl.DotOperandLayout(0, acc_layout, 4))
                mbarrier.wait(ready.index(slot), (place >> SHIFT) & 1)
                acc = warpgroup_mma(held, turned.index(slot).permute((1, 0)), acc, is_async=True)
                acc = warpgroup_mma_wait(0, deps=[acc])
                mbarrier.arrive(empty.index(slot), count=1)
                level = best
            mbarrier.arrive(taken.index(own), count=1)
            whole = gl.sum(total, 1)
            share = factor / gl.where(whole == 0.0, 1.0, whole)
            at = [FAR_ROW, end, FAR_ROW - left + mine * TILE, head * out_head]
            held_as: gl.constexpr = (None, 1.0, 0.0) if out_map.dtype == dtype else (None, None, None)
            hand_out(acc, share, held_as, head, out_map, at, result, D)
        else:
            let_pass(gl.where(tiles > 0, key_tiles, 0), filled, full, empty, SHIFT)
        handed += tiles
        filled += gl.where(tiles > 0, key_tiles, 0)
    tma.store_wait(0)


@gluon.jit
def fp8_attention_by_teams(
    q_map, k_map, v_map, out_map, table, scale, factor, q_head, k_head, v_head, out_head,
    HEADS: gl.constexpr, GROUPS: gl.constexpr, D: gl.constexpr, SHIFT: gl.constexpr, OVERLAP: gl.constexpr,
):  # fmt: skip
    """Maps with blocks `[1, 1, TILE, D]`; `table` from `list_units`; scale: of logits in base 2; factor: of values and
    the context together."""
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    dtype: gl.constexpr = q_map.dtype
    across: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=64, element_bitwidth=8, rank=2)
    queries = gl.allocate_shared_memory(dtype, [1 << ASKED, 1, 1, TILE, D], q_map.layout)
    keys = gl.allocate_shared_memory(dtype, [1 << SHIFT, 1, 1, TILE, D], k_map.layout)
    values = gl.allocate_shared_memory(dtype, [1 << SHIFT, 1, 1, TILE, D], v_map.layout)
    turned = gl.allocate_shared_memory(dtype, [1 << SHIFT, D, TILE], across)
    results = gl.allocate_shared_memory(out_map.dtype, [TEAMS, 1, 1, TILE, D], out_map.layout)
    asked = gl.allocate_shared_memory(gl.int64, [1 << ASKED, 1], mbarrier.MBarrierLayout())
    taken = gl.allocate_shared_memory(gl.int64, [1 << ASKED, 1], mbarrier.MBarrierLayout())
    full = gl.allocate_shared_memory(gl.int64, [1 << SHIFT, 1], mbarrier.MBarrierLayout())
    ready = gl.allocate_shared_memory(gl.int64, [1 << SHIFT, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [1 << SHIFT, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(1 << ASKED):
        mbarrier.init(asked.index(i), count=1)
        mbarrier.init(taken.index(i), count=1)
    for i in gl.static_range(1 << SHIFT):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(ready.index(i), count=1)
        mbarrier.init(empty.index(i), count=TEAMS)
    fence_async_shared()
    thread_barrier()
    units = gl.load(table) * HEADS
    maps = (q_map, k_map, v_map, out_map)
    strides = (q_head, k_head, v_head, out_head)
    ring = (queries, keys, values, results, asked, taken, full, empty)
    gl.warp_specialize(
        [
            (compute, (0, maps, table, units, ring, turned, ready, scale, factor, out_head, HEADS, D, SHIFT)),
            (compute, (1, maps, table, units, ring, turned, ready, scale, factor, out_head, HEADS, D, SHIFT)),
            (compute, (2, maps, table, units, ring, turned, ready, scale, factor, out_head, HEADS, D, SHIFT)),
            (compute, (3, maps, table, units, ring, turned, ready, scale, factor, out_head, HEADS, D, SHIFT)),
            (turn_round, (table, units, values, turned, full, ready, HEADS, D, SHIFT)),
            (produce, (maps, strides, table, units, ring, HEADS, GROUPS, D, SHIFT, ASKED)),
        ],
        [4, 4, 4, 4, 1],
        [104, 104, 104, 40, 24],
    )
