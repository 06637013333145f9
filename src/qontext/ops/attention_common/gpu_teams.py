"""Launching the Hopper kernel of programs that stay (`gpu_teams_kernel.py`), for more heads than fill the device."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from ..call import Call
from ..gluon_maps import layout_of
from ..gpu_launch import blocks, may_overlap
from .gpu import LOG2E, Longest, Sizes, bounds_of, held_of
from .problem import Problem

HEAD_SIZES = (32, 64)  # larger ones would leave too few registers for four teams, and too few tiles in the ring
_RING = 3  # 2 ** 3 tiles of keys and values: 128 KB for heads of 64
_TILE, _TEAMS, _ENTRY = 64, 4, 8  # those of `gpu_units_kernel.py`
_LISTED_AT_ONCE = 64
_LAST_ROW = 1 << 30  # where the rows of every sequence end
_ENDLESS = 0x7FFF0000  # the length of an axis that bounds nothing

# (problem, its `rows_of`, longest): fills the last of the rows, the context.
Teams = Callable[[Problem, "list[torch.Tensor]", Longest], None]


@functools.cache
def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def rows_of(problem: Problem, out: torch.Tensor) -> list[torch.Tensor] | None:
    """Query, key, value and context as rows `[rows, N, D]`, views; None where tensor maps cannot describe one: rows
    not evenly spaced, not on 16 bytes, or heads not contiguous."""
    rows = [_rows(x) for x in (problem.query, problem.key, problem.value, out)]
    found = [x for x in rows if x is not None]
    return found if len(found) == len(rows) else None


def _rows(x: torch.Tensor) -> torch.Tensor | None:
    if x.dim() == 4:
        if x.shape[0] > 1 and x.stride(0) != x.shape[1] * x.stride(1):
            return None
        x = x.as_strided((x.shape[0] * x.shape[1], *x.shape[2:]), x.stride()[1:])
    row, head, one = x.stride()
    even = one == 1 and row > 0 and (row * x.element_size()) % 16 == 0 and x.data_ptr() % 16 == 0
    return x if even and head >= 0 else None


def map_of(x: torch.Tensor, block_rows: int = _TILE) -> Any:
    """A tensor map of rows `[rows, N, D]` in blocks `[1, 1, block_rows, D]`.

    Entry (2 ** 30, end, 2 ** 30 - left, c) is column c of row end - left: two strides add up to a whole number of
    address spaces less the rows before.
    """
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    row, head, _ = x.stride()
    _, heads, size = x.shape
    block = [1, 1, block_rows, size]
    shape = [_ENDLESS, _ENDLESS, _LAST_ROW, (heads - 1) * head + size]
    return TensorDescriptor(x, shape, [2**34 - row, row, row, 1], block, layout_of(x.dtype, block))


def listed_units(
    problem: Problem, sizes: Sizes, longest: Longest, device: torch.device, overlap: bool
) -> tuple[torch.Tensor, int]:
    """The table of units of work that a kernel on the device fills, and how many programs share them."""
    from .gpu_units_kernel import list_units

    bounds_q, bounds_k, counts, _ = bounds_of(problem)
    parts = blocks(longest.queries, _TILE * _TEAMS)
    items = sizes.batch * parts
    table = torch.empty((1 + items) * _ENTRY, dtype=torch.int32, device=device)
    list_units[(blocks(items, _LISTED_AT_ONCE),)](
        bounds_q, bounds_k, counts, table, items, longest.queries, longest.keys, parts, _LISTED_AT_ONCE, overlap,
        launch_pdl=overlap,
    )  # fmt: skip
    return table, min(multiprocessors(device), items * sizes.heads)


def bind_teams(call: Call) -> Teams:
    """The two kernels, for calls that `gpu_hopper.refusal` says nothing of, with heads of HEAD_SIZES."""
    from .gpu_teams_kernel import attention_by_teams

    overlap, held = may_overlap(call), held_of(call)

    def run(problem: Problem, rows: list[torch.Tensor], longest: Longest) -> None:
        sizes = Sizes.of(problem)
        table, programs = listed_units(problem, sizes, longest, rows[0].device, overlap)
        attention_by_teams[(programs,)](
            *(map_of(x) for x in rows), *held, table, problem.rule.scale * LOG2E, 0, *(x.stride(1) for x in rows),
            sizes.heads, sizes.groups, sizes.size, _RING, overlap, num_warps=4, launch_pdl=overlap,
        )  # fmt: skip

    return run
