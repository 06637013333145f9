"""Launching the Hopper kernel that keeps the keys and values of a head in shared memory (`gpu_hopper_kernel.py`).

It takes sequences of up to 512 tokens with heads of 64 (256 with heads of 128); a batch with longer ones goes to the
kernel that streams them, in the same step, since only the run knows the lengths.
"""

import functools
from dataclasses import dataclass, replace

import torch

from ...graph.dims import AnyDim
from ..call import Call
from ..gpu_launch import blocks, compute_capability, may_overlap
from .gpu import LOG2E, Attend, Longest, Sizes, bind_plain, bounds_of, operands_of
from .problem import Problem

HOPPER = 90
HEAD_SIZES = (32, 64, 128)
_TILE = 64
_BUCKETS = (1, 2, 3, 4, 6, 8)  # tiles of keys that a program has room for
_ROOM = 8 * _TILE * 64  # keys times head size that leave a multiprocessor room for one program at least
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


def longest_resident(size: int) -> int:
    """The longest sequence whose keys and values stay in shared memory, for heads of `size`."""
    return min(_ROOM // size, _BUCKETS[-1] * _TILE)


@dataclass(frozen=True)
class Plan:
    """How the kernel is launched: tiles of keys that fit, programs a head, teams of warps, registers a thread."""

    tiles: int
    share: int
    teams: int
    registers: int


def plan_for(sizes: Sizes, longest: Longest, multiprocessors: int) -> Plan:
    """Four teams a multiprocessor, in as many programs as have room; few heads are shared out among programs."""
    tiles = next(n for n in _BUCKETS if n * _TILE >= longest.keys)
    bytes_each = tiles * _TILE * sizes.size * 4
    teams = 1 if bytes_each <= 48 << 10 else 2 if bytes_each <= 96 << 10 else 4
    query_tiles = blocks(longest.queries, _TILE)
    share = max(1, _PROGRAMS_EACH * multiprocessors // (sizes.batch * sizes.heads))
    if share > 1:
        teams = 1
    return Plan(tiles, min(share, blocks(query_tiles, teams)), teams, 128 if sizes.size <= 64 else 224)


def bind_resident(call: Call) -> Attend:
    """The resident kernel for batches of short sequences, the streaming one for others."""
    from .gpu_hopper_kernel import resident_attention

    overlap = may_overlap(call)
    streaming = bind_plain(call)

    def run(problem: Problem, out: torch.Tensor, longest: Longest) -> None:
        sizes = Sizes.of(problem)
        if longest.keys > longest_resident(sizes.size) or out.numel() == 0 or problem.key.numel() == 0:
            streaming(problem, out, longest)
            return
        operands, strides = operands_of(problem, out)
        operands, strides = _aligned(problem, out) if any(s % _ALIGNED for s in strides) else (operands, strides)
        bounds_q, bounds_k, counts, _ = bounds_of(problem)
        plan = plan_for(sizes, longest, _multiprocessors(out.device))
        resident_attention[(plan.share * sizes.batch * sizes.heads,)](
            *operands, bounds_q, bounds_k, counts, longest.queries, longest.keys, problem.rule.scale * LOG2E,
            *strides, sizes.heads, sizes.groups, sizes.size, plan.tiles, plan.share, plan.teams,
            plan.registers, overlap, num_warps=4, launch_pdl=overlap, maxnreg=plan.registers,
        )  # fmt: skip

    return run


def _aligned(problem: Problem, out: torch.Tensor) -> tuple[list[torch.Tensor], list[int]]:
    """The operands with rows that lie evenly, copied: no tensor of an engine needs it, a caller's slice may."""
    even = replace(
        problem, query=problem.query.contiguous(), key=problem.key.contiguous(), value=problem.value.contiguous()
    )
    return operands_of(even, out)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
