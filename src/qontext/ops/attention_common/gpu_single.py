"""Launching the Hopper kernel for many sequences of one tile of keys (`gpu_single_kernel.py`)."""

import torch

from ..call import Call
from ..gpu_launch import may_overlap
from .gpu import LOG2E, Longest, Sizes, bounds_of, held_of
from .gpu_teams import Teams, map_of, multiprocessors
from .problem import Problem

KEYS = 128  # the longest sequence
_TILE = 64
_STAGES = 3  # as many as teams: a team comes back to places that it read before, and knows which fill it waits for


def bind_single(call: Call) -> Teams:
    """The kernel, for calls that `gpu_hopper.refusal` says nothing of, with heads of `gpu_teams.HEAD_SIZES` and at most
    KEYS queries and keys a sequence."""
    from .gpu_single_kernel import attention_in_one

    overlap, held = may_overlap(call), held_of(call)

    def run(problem: Problem, rows: list[torch.Tensor], longest: Longest) -> None:
        sizes = Sizes.of(problem)
        bounds_q, bounds_k, counts, _ = bounds_of(problem)
        units = sizes.batch * sizes.heads
        maps = [map_of(x, block) for x, block in zip(rows, (_TILE, KEYS, KEYS, _TILE), strict=True)]
        attention_in_one[(min(multiprocessors(rows[0].device), units),)](
            *maps, *held, bounds_q, bounds_k, counts, units, longest.queries, longest.keys,
            problem.rule.scale * LOG2E, *(x.stride(1) for x in rows),
            sizes.heads, sizes.groups, sizes.size, _STAGES, overlap, num_warps=4, launch_pdl=overlap,
        )  # fmt: skip

    return run
