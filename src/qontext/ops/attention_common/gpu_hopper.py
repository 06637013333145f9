"""The Hopper kernels of full attention, and which of them takes a batch.

A few sequences of up to 512 tokens go to the kernel that keeps the keys and values of a head in shared memory, where
its programs share a head (`gpu_hopper_kernel.py`); many heads of more than a tile to those whose programs stay: one
for sequences whose keys are a single tile (`gpu_single_kernel.py`), one for longer ones (`gpu_teams_kernel.py`). The
rest goes to the kernel that streams keys. The choice is made within the step, since only
the run knows the lengths; `bench/gpu_attention.py` measures all.
"""

from dataclasses import dataclass

import torch

from ...graph.dims import AnyDim
from ..call import Call
from ..gpu_launch import blocks, compute_capability, may_overlap
from .gpu import LOG2E, Attend, Longest, Sizes, bind_plain, bounds_of, held_of, operands_of, strided
from .gpu_single import KEYS as SINGLE_KEYS
from .gpu_single import bind_single
from .gpu_teams import HEAD_SIZES as TEAM_SIZES
from .gpu_teams import bind_teams, multiprocessors, rows_of
from .problem import Problem

HOPPER = 90
HEAD_SIZES = (32, 64, 128)
_REGISTERS = {32: 128, 64: 128, 128: 224}  # a thread at most, by head size: as many as it needs, no more
_TILE = 64
_BUCKETS = (1, 2, 3, 4, 6, 8)  # tiles of keys that a program has room for
_ROOM = 8 * _TILE * 64  # keys times head size that fit shared memory
_ALIGNED = 16  # elements that rows and heads start at multiples of: copies move 8 at a time
_PROGRAMS_EACH = 4  # programs a multiprocessor, from which heads are no longer shared out


def refusal(call: Call, size: AnyDim, value_size: AnyDim) -> str | None:
    """What the kernel does not take, beyond what `needs_masks` says."""
    found = compute_capability(call)
    if found != HOPPER:
        return f"the device is sm_{found}; the kernel is written for sm_{HOPPER}"
    if size not in HEAD_SIZES or value_size != size:
        return f"the head sizes are {size} and {value_size}; the kernel takes two times the same of {HEAD_SIZES}"
    operand, attributes = call.inputs[0], call.attributes
    assert operand is not None
    if operand.dtype == "float32":
        return "the operands are float32; the kernel takes float16 and bfloat16"
    if attributes["kind"] != "full":
        return f"kind is {attributes['kind']!r}; the kernel takes 'full'"
    windows = (attributes["window_left"], attributes["window_right"])
    return None if max(windows) < 0 else f"the window is {windows}; the kernel has none"


@dataclass(frozen=True)
class Plan:
    """How the kernel is launched: tiles of keys that it has room for, and programs that share a head."""

    tiles: int
    share: int


def plan_for(sizes: Sizes, longest: Longest, multiprocessors: int) -> Plan | None:
    """The launch of the resident kernel for these sizes; None where its keys do not fit or heads are many."""
    tiles = next((n for n in _BUCKETS if n * _TILE >= longest.keys), 0)
    share = max(1, _PROGRAMS_EACH * multiprocessors // max(sizes.batch * sizes.heads, 1))
    if not tiles or tiles * _TILE * sizes.size > _ROOM or share == 1:
        return None
    return Plan(tiles, min(share, blocks(longest.queries, _TILE)))


def bind_hopper(call: Call) -> Attend:
    """One of the four kernels, by the sizes of the batch."""
    from .gpu_hopper_kernel import resident_attention

    overlap, held = may_overlap(call), held_of(call)
    streaming, teams, single = bind_plain(call), bind_teams(call), bind_single(call)

    def run(problem: Problem, out: torch.Tensor, longest: Longest) -> None:
        sizes = Sizes.of(problem)
        plan = plan_for(sizes, longest, multiprocessors(out.device))
        tiled = min(longest.queries, longest.keys) > _TILE and sizes.size in TEAM_SIZES
        if out.numel() == 0 or problem.key.numel() == 0:
            streaming(problem, out, longest)
        elif plan is not None:
            resident(problem, out, longest, sizes, plan)
        elif tiled and (rows := rows_of(problem, out)) is not None:
            one = max(longest.queries, longest.keys) <= SINGLE_KEYS
            (single if one else teams)(problem, rows, longest)
        else:
            streaming(problem, out, longest)

    def resident(problem: Problem, out: torch.Tensor, longest: Longest, sizes: Sizes, plan: Plan) -> None:
        operands, strides = _evenly(*operands_of(problem, out))
        bounds_q, bounds_k, counts, _ = bounds_of(problem)
        resident_attention[(plan.share * sizes.batch * sizes.heads,)](
            *operands, *held, bounds_q, bounds_k, counts, longest.queries, longest.keys, problem.rule.scale * LOG2E,
            *strides, sizes.heads, sizes.groups, sizes.size, plan.tiles, plan.share, overlap,
            num_warps=4, launch_pdl=overlap, maxnreg=_REGISTERS[sizes.size],
        )  # fmt: skip

    return run


def _evenly(operands: list[torch.Tensor], strides: list[int]) -> tuple[list[torch.Tensor], list[int]]:
    """The operands with rows that copies can take 16 bytes at a time: no tensor of an engine needs a copy for it, a
    caller's slice may."""
    if not any(stride % _ALIGNED for stride in strides[:9]) and all(x.data_ptr() % 16 == 0 for x in operands[:3]):
        return operands, strides
    even = [x.contiguous() for x in operands[:3]]
    return strided([*even, operands[3]])
