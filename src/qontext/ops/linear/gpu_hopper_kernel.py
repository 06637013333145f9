"""Device code of Linear for Hopper: the result of one tile is finished while the product of the next one runs.

y = act(x W^T + bias) + residual, layouts and limits as in `gpu_kernel.py`.

A program stays and takes every `programs`-th tile. One warp copies operands into a ring of STAGES buffers through
tensor maps; two teams of four warps take the tiles in turns, each with its accumulator in registers. A team begins its
product when the other one has issued the last step of its own: bias, activation and store of one team then run beside
the matrix products of the other. (It must not begin earlier: barriers of the ring tell odd from even rounds only.)
A result goes through shared memory, from where a tensor map stores it.
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

from ..gluon_names import load_tile, store_tile, thread_barrier
from ..gpu_activation_kernel import activated

TILE = gl.constexpr(128)  # rows and columns of a tile of y
DEPTH = gl.constexpr(64)  # of a step along K
GROUP = gl.constexpr(8)  # rows of tiles that are numbered together, so that those in flight share operands


@gluon.jit
def place_of(tile, tiles_of_rows, N: gl.constexpr):
    """The first row and column of a tile."""
    tiles_of_columns: gl.constexpr = (N + TILE - 1) // TILE
    per_group: gl.constexpr = GROUP * tiles_of_columns
    first = tile // per_group * GROUP
    in_group = gl.minimum(tiles_of_rows - first, GROUP)
    return (first + tile % per_group % in_group) * TILE, tile % per_group // in_group * TILE


@gluon.jit
def produce(maps, rings, tiles_of_rows, tiles, programs, N: gl.constexpr, K: gl.constexpr, STAGES: gl.constexpr):
    """One warp: operands of every step of every tile, as soon as a buffer is free."""
    x_map, weight_map, _ = maps
    xs, weights, ready, free, _ = rings
    step = 0
    for tile in range(gl.program_id(0), tiles, programs):
        row, column = place_of(tile, tiles_of_rows, N)
        for k in range(0, K, DEPTH):
            stage = step % STAGES
            mbarrier.wait(free.index(stage), step // STAGES & 1 ^ 1)
            mbarrier.expect(ready.index(stage), 2 * TILE * DEPTH * 2)
            load_tile(x_map, [row, k], ready.index(stage), xs.index(stage))
            load_tile(weight_map, [column, k], ready.index(stage), weights.index(stage))
            step += 1


@gluon.jit
def consume(
    team, maps, rings, held, bias, residual, tiles_of_rows, tiles, programs, rows,
    N: gl.constexpr, K: gl.constexpr, STAGES: gl.constexpr, KIND: gl.constexpr,
):  # fmt: skip
    """One team of four warps: the products and results of every second tile of the program."""
    _, _, y_map = maps
    xs, weights, ready, free, turns = rings
    steps: gl.constexpr = (K + DEPTH - 1) // DEPTH
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE, 16])
    step = team * steps
    turn = team + 1
    for tile in range(gl.program_id(0) + team * programs, tiles, 2 * programs):
        acc = gl.zeros([TILE, TILE], gl.float32, layout)
        mbarrier.wait(turns.index(team), turn & 1)
        turn += 1
        for k in range(steps):
            stage = step % STAGES
            mbarrier.wait(ready.index(stage), step // STAGES & 1)
            acc = warpgroup_mma(xs.index(stage), weights.index(stage).permute((1, 0)), acc, is_async=True)
            # With this product under way the one before it is through, and its buffer free.
            acc = warpgroup_mma_wait(1, deps=[acc])
            mbarrier.arrive(free.index((step + STAGES - 1) % STAGES), count=1, pred=k > 0)
            step += 1
        mbarrier.arrive(turns.index(1 - team), count=1)
        acc = warpgroup_mma_wait(0, deps=[acc])
        mbarrier.arrive(free.index((step + STAGES - 1) % STAGES), count=1)
        step += steps
        row, column = place_of(tile, tiles_of_rows, N)
        at = column + gl.arange(0, TILE, layout=gl.SliceLayout(0, layout))
        if bias is not None:
            acc += gl.load(bias + at, mask=at < N, other=0.0).to(gl.float32)[None, :]
        acc = activated(acc, KIND, True)
        if residual is not None:
            line = row + gl.arange(0, TILE, layout=gl.SliceLayout(1, layout))
            inside = (line < rows)[:, None] & (at < N)[None, :]
            places = residual + line.to(gl.int64)[:, None] * N + at[None, :]
            acc += gl.load(places, mask=inside, other=0.0).to(gl.float32)
        tma.store_wait(0)
        held.store(acc.to(y_map.dtype))
        fence_async_shared()
        store_tile(y_map, [row, column], held)
    tma.store_wait(0)


@gluon.jit
def linear_alternating(
    x_map, weight_map, y_map, bias, residual, rows, programs,
    N: gl.constexpr, K: gl.constexpr, STAGES: gl.constexpr, KIND: gl.constexpr, OVERLAP: gl.constexpr,
):  # fmt: skip
    """x_map, weight_map: tensor maps with blocks [TILE, DEPTH]; y_map: of y with blocks [TILE, TILE]."""
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    dtype: gl.constexpr = x_map.dtype
    xs = gl.allocate_shared_memory(dtype, [STAGES, TILE, DEPTH], x_map.layout)
    weights = gl.allocate_shared_memory(dtype, [STAGES, TILE, DEPTH], weight_map.layout)
    held = gl.allocate_shared_memory(dtype, [2, TILE, TILE], y_map.layout)
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    turns = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for team in gl.static_range(2):
        mbarrier.init(turns.index(team), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(ready.index(stage), count=1)
        mbarrier.init(free.index(stage), count=1)
    fence_async_shared()
    thread_barrier()
    tiles_of_rows = (rows + TILE - 1) // TILE
    tiles = tiles_of_rows * ((N + TILE - 1) // TILE)
    maps = (x_map, weight_map, y_map)
    rings = (xs, weights, ready, free, turns)
    gl.warp_specialize(
        [
            (
                consume,
                (
                    0,
                    maps,
                    rings,
                    held.index(0),
                    bias,
                    residual,
                    tiles_of_rows,
                    tiles,
                    programs,
                    rows,
                    N,
                    K,
                    STAGES,
                    KIND,
                ),
            ),
            (
                consume,
                (
                    1,
                    maps,
                    rings,
                    held.index(1),
                    bias,
                    residual,
                    tiles_of_rows,
                    tiles,
                    programs,
                    rows,
                    N,
                    K,
                    STAGES,
                    KIND,
                ),
            ),
            (produce, (maps, rings, tiles_of_rows, tiles, programs, N, K, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )
