"""Device code of QuantLinear for Hopper: the result of one tile is finished while the product of the next one runs.

What is computed, and its operands, are those of `gpu_kernel.py`; K and N are multiples of 16.

A program stays and takes every `programs`-th tile. One warp copies operands into a ring of STAGES buffers through
tensor maps; two teams of four warps take the tiles in turns, each with its sums in registers. A team begins its product
when the other one has issued the last step of its own: what follows the sums of one team (scales, bias, activation,
rounding, store) then runs beside the matrix products of the other. A result goes through shared memory, from where a
tensor map stores it.

RESIDENT: a program takes neighbouring tiles, column after column, and keeps the weights of a column in shared memory;
the ring holds x alone. SHORT: the result is the exact GELU in e4m3, no residual, no y_factor, in a form of its own.
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
from ..gpu_activation_kernel import activated
from ..linear.gpu_hopper_kernel import TILE, place_of
from .gpu_gelu_kernel import gelu_in_e4m3

DEPTH = gl.constexpr(128)  # of a step along K, bytes


@gluon.jit
def tiles_of(tiles, programs, RESIDENT: gl.constexpr):
    """The first tile of this program, the end of its tiles, and the way from one to the next."""
    program = gl.program_id(0)
    if RESIDENT:
        begin = program * tiles // programs
        end = (program + 1) * tiles // programs
        by = 1
    else:
        begin = program
        end = tiles
        by = programs
    return begin, end, by


@gluon.jit
def corner_of(tile, tiles_of_rows, N: gl.constexpr, RESIDENT: gl.constexpr):
    """The first row and column of a tile."""
    if RESIDENT:
        row = tile % tiles_of_rows * TILE
        column = tile // tiles_of_rows * TILE
    else:
        row, column = place_of(tile, tiles_of_rows, N)
    return row, column


@gluon.jit
def produce(
    maps, rings, sizes, N: gl.constexpr, K: gl.constexpr, STAGES: gl.constexpr, RESIDENT: gl.constexpr,
):  # fmt: skip
    """One warp: operands of every step of every tile, as soon as a buffer is free."""
    x_map, weight_map, _ = maps
    xs, weights, ready, free, _ = rings
    tiles_of_rows, tiles, programs, _ = sizes
    begin, end, by = tiles_of(tiles, programs, RESIDENT)
    step = 0
    there = gl.to_tensor(-1)
    for tile in range(begin, end, by):
        row, column = corner_of(tile, tiles_of_rows, N, RESIDENT)
        if RESIDENT:
            fresh = column != there
            there = column
            if fresh:  # every product with the columns before is through when all buffers are free
                for ahead in range(STAGES):
                    later = step + ahead
                    mbarrier.wait(free.index(later % STAGES), later // STAGES & 1 ^ 1)
        for k in range(0, K, DEPTH):
            stage = step % STAGES
            mbarrier.wait(free.index(stage), step // STAGES & 1 ^ 1)
            if RESIDENT:
                if fresh:
                    mbarrier.expect(ready.index(stage), 2 * TILE * DEPTH)
                    load_tile(weight_map, [column, k], ready.index(stage), weights.index(k // DEPTH))
                else:
                    mbarrier.expect(ready.index(stage), TILE * DEPTH)
            else:
                mbarrier.expect(ready.index(stage), 2 * TILE * DEPTH)
                load_tile(weight_map, [column, k], ready.index(stage), weights.index(stage))
            load_tile(x_map, [row, k], ready.index(stage), xs.index(stage))
            step += 1


@gluon.jit
def column_of(vector, at, N: gl.constexpr):
    """A vector at columns, zeros beyond the last one."""
    return gl.load(vector + at, mask=at < N, other=0.0)[None, :]


@gluon.jit
def consume(
    team, maps, rings, held, vectors, by_row, residual, static, sizes,
    N: gl.constexpr, K: gl.constexpr, STAGES: gl.constexpr, KIND: gl.constexpr, RESIDENT: gl.constexpr,
    SHORT: gl.constexpr,
):  # fmt: skip
    """One team of four warps: the products and results of every second tile of the program."""
    tiles_of_rows, tiles, programs, rows = sizes
    begin, end, by = tiles_of(tiles, programs, RESIDENT)
    _, _, y_map = maps
    xs, weights, ready, free, turns = rings
    scales, columns, shift = vectors
    row_scale, row_zero = by_row
    y_factor, y_inverse, y_zero = static
    steps: gl.constexpr = (K + DEPTH - 1) // DEPTH
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, TILE, 32])
    step = team * steps
    turn = team + 1
    for tile in range(begin + team * by, end, 2 * by):
        sums = gl.zeros([TILE, TILE], gl.int32 if xs.dtype == gl.int8 else gl.float32, layout)
        mbarrier.wait(turns.index(team), turn & 1)
        turn += 1
        for k in range(steps):
            stage = step % STAGES
            mbarrier.wait(ready.index(stage), step // STAGES & 1)
            panel = weights.index(k if RESIDENT else stage).permute((1, 0))
            sums = warpgroup_mma(xs.index(stage), panel, sums, is_async=True)
            # With this product under way the one before it is through, and its buffer free.
            sums = warpgroup_mma_wait(1, deps=[sums])
            mbarrier.arrive(free.index((step + STAGES - 1) % STAGES), count=1, pred=k > 0)
            step += 1
        mbarrier.arrive(turns.index(1 - team), count=1)
        sums = warpgroup_mma_wait(0, deps=[sums])
        mbarrier.arrive(free.index((step + STAGES - 1) % STAGES), count=1)
        step += steps
        row, column = corner_of(tile, tiles_of_rows, N, RESIDENT)
        at = column + gl.arange(0, TILE, layout=gl.SliceLayout(0, layout))
        line = row + gl.arange(0, TILE, layout=gl.SliceLayout(1, layout))
        v = sums.to(gl.float32)
        if row_zero is not None:
            moved = 128.0 - gl.load(row_zero + line, mask=line < rows, other=0.0)
            v += moved[:, None] * column_of(columns, at, N)
        if row_scale is not None:
            v *= gl.load(row_scale + line, mask=line < rows, other=0.0)[:, None]
        v *= column_of(scales, at, N)
        if shift is not None:
            v += column_of(shift, at, N)
        if not SHORT:
            v = activated(v, KIND, True, y_inverse is not None)
        if residual is not None:
            inside = (line < rows)[:, None] & (at < N)[None, :]
            places = residual + line.to(gl.int64)[:, None] * N + at[None, :]
            v += gl.load(places, mask=inside, other=0.0).to(gl.float32)
        if SHORT:
            done = gelu_in_e4m3(v, y_inverse)
        elif y_inverse is not None:
            if y_factor is not None:
                v *= column_of(y_factor, at, N)
            done = in_eight_bits(v, y_inverse, y_zero, y_map.dtype)
        else:
            done = v.to(y_map.dtype)
        tma.store_wait(0)
        held.store(done)
        fence_async_shared()
        store_tile(y_map, [row, column], held)
    tma.store_wait(0)


@gluon.jit
def quant_alternating(
    x_map, weight_map, y_map, scales, columns, shift, row_scale, row_zero, residual, y_factor, y_inverse, y_zero,
    rows, programs,
    N: gl.constexpr, K: gl.constexpr, STAGES: gl.constexpr, KIND: gl.constexpr, RESIDENT: gl.constexpr,
    SHORT: gl.constexpr, OVERLAP: gl.constexpr,
):  # fmt: skip
    """x_map, weight_map: tensor maps with blocks [TILE, DEPTH]; y_map: of y with blocks [TILE, TILE]."""
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    xs = gl.allocate_shared_memory(x_map.dtype, [STAGES, TILE, DEPTH], x_map.layout)
    slabs: gl.constexpr = (K + DEPTH - 1) // DEPTH if RESIDENT else STAGES
    weights = gl.allocate_shared_memory(x_map.dtype, [slabs, TILE, DEPTH], weight_map.layout)
    held = gl.allocate_shared_memory(y_map.dtype, [2, TILE, TILE], y_map.layout)
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
    vectors = (scales, columns, shift)
    by_row = (row_scale, row_zero)
    static = (y_factor, y_inverse, y_zero)
    sizes = (tiles_of_rows, tiles, programs, rows)
    gl.warp_specialize(
        [
            (
                first_team,
                (maps, rings, held, vectors, by_row, residual, static, sizes, N, K, STAGES, KIND, RESIDENT, SHORT),
            ),
            (
                second_team,
                (maps, rings, held, vectors, by_row, residual, static, sizes, N, K, STAGES, KIND, RESIDENT, SHORT),
            ),
            (produce, (maps, rings, sizes, N, K, STAGES, RESIDENT)),
        ],
        [4, 1],
        [240, 24],
    )


@gluon.jit
def first_team(
    maps, rings, held, vectors, by_row, residual, static, sizes,
    N: gl.constexpr, K: gl.constexpr, STAGES: gl.constexpr, KIND: gl.constexpr, RESIDENT: gl.constexpr,
    SHORT: gl.constexpr,
):  # fmt: skip
    """The team that begins."""
    consume(
        0, maps, rings, held.index(0), vectors, by_row, residual, static, sizes, N, K, STAGES, KIND, RESIDENT, SHORT
    )


@gluon.jit
def second_team(
    maps, rings, held, vectors, by_row, residual, static, sizes,
    N: gl.constexpr, K: gl.constexpr, STAGES: gl.constexpr, KIND: gl.constexpr, RESIDENT: gl.constexpr,
    SHORT: gl.constexpr,
):  # fmt: skip
    """The team that follows it."""
    consume(
        1, maps, rings, held.index(1), vectors, by_row, residual, static, sizes, N, K, STAGES, KIND, RESIDENT, SHORT
    )
