"""Device code of Linear for few rows on Hopper: the whole weight of a tile is on its way before the kernel waits.

y = act(x W^T + bias), or the parts of x W^T whose sum is left to the reader; layouts and limits as in `gpu_kernel.py`.

The weight does not depend on the kernel in front, so its tile `[COLUMNS, SPAN]` is copied to shared memory by a tensor
map while that one still runs. Then x follows in steps of DEPTH through a ring of RING buffers; with few rows a tensor
map would only take longer to answer than plain asynchronous copies.
"""

# mypy: ignore-errors

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..gluon_names import copy_in, load_tile, thread_barrier
from ..gpu_activation_kernel import activated

DEPTH = gl.constexpr(64)  # of a step along K


@gluon.jit
def ask(x, buffer, row, first, rows, K: gl.constexpr, ROWS: gl.constexpr):
    """Begins to copy x[row:row + ROWS, first:first + DEPTH]; what lies outside becomes zeros."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [gl.num_warps(), 1], [1, 0])
    line = row + gl.arange(0, ROWS, layout=gl.SliceLayout(1, layout))
    at = first + gl.arange(0, DEPTH, layout=gl.SliceLayout(0, layout))
    inside = (line < rows)[:, None] & (at < K)[None, :]
    copy_in(buffer, x + line.to(gl.int64)[:, None] * K + at[None, :], inside)
    async_copy.commit_group()


@gluon.jit
def linear_early(
    x, weight_map, bias, y, rows, tiles_of_rows,
    N: gl.constexpr, K: gl.constexpr, ROWS: gl.constexpr, COLUMNS: gl.constexpr, SPAN: gl.constexpr,
    RING: gl.constexpr, PARTS: gl.constexpr, KIND: gl.constexpr, OVERLAP: gl.constexpr,
):  # fmt: skip
    """One program computes a tile of y over SPAN of K, a multiple of DEPTH.

    weight_map: a tensor map with blocks [COLUMNS, DEPTH]; it has to be of a constant.
    PARTS: 1, or how many programs share K: y is then `[PARTS, rows, N]` float32, without bias and activation.
    """
    STEPS: gl.constexpr = SPAN // DEPTH
    tile = gl.program_id(0)
    part = gl.program_id(1)
    row = tile % tiles_of_rows * ROWS
    column = tile // tiles_of_rows * COLUMNS
    first = part * SPAN
    dtype: gl.constexpr = weight_map.dtype
    shared: gl.constexpr = gl.NVMMASharedLayout.get_default_for([ROWS, DEPTH], dtype)
    xs = gl.allocate_shared_memory(dtype, [RING, ROWS, DEPTH], shared)
    weights = gl.allocate_shared_memory(dtype, [STEPS, COLUMNS, DEPTH], weight_map.layout)
    ready = gl.allocate_shared_memory(gl.int64, [STEPS, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(STEPS):
        mbarrier.init(ready.index(i), count=1)
    fence_async_shared()
    thread_barrier()
    for i in gl.static_range(STEPS):
        mbarrier.expect(ready.index(i), COLUMNS * DEPTH * 2)
        load_tile(weight_map, [column, first + i * DEPTH], ready.index(i), weights.index(i))
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    for i in gl.static_range(RING):
        ask(x, xs.index(i), row, first + i * DEPTH, rows, K, ROWS)
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [gl.num_warps(), 1], [16, COLUMNS, 16])
    acc = gl.zeros([ROWS, COLUMNS], gl.float32, layout)
    for i in gl.static_range(STEPS):
        # Of the copies begun so far all up to this step's have to be there, in every thread's view.
        async_copy.wait_group(min(STEPS, RING + max(0, i - 1)) - i - 1)
        fence_async_shared()
        thread_barrier()
        mbarrier.wait(ready.index(i), 0)
        acc = warpgroup_mma(xs.index(i % RING), weights.index(i).permute((1, 0)), acc, is_async=True)
        if i > 0 and i - 1 + RING < STEPS:
            # The product before this one is through, and its buffer free.
            acc = warpgroup_mma_wait(1, deps=[acc])
            thread_barrier()
            ask(x, xs.index((i - 1) % RING), row, first + (i - 1 + RING) * DEPTH, rows, K, ROWS)
    acc = warpgroup_mma_wait(0, deps=[acc])
    line = row + gl.arange(0, ROWS, layout=gl.SliceLayout(1, layout))
    at = column + gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, layout))
    inside = (line < rows)[:, None] & (at < N)[None, :]
    places = line.to(gl.int64)[:, None] * N + at[None, :]
    if PARTS == 1:
        if bias is not None:
            acc += gl.load(bias + at, mask=at < N, other=0.0).to(gl.float32)[None, :]
        acc = activated(acc, KIND, True)
    else:
        places += part.to(gl.int64) * rows * N
    gl.store(y + places, acc.to(y.dtype.element_ty), mask=inside)
