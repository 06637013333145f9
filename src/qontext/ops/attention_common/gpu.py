"""Launching the GPU attention kernels on a problem: views go in as pointers and strides, nothing is copied.

The launch reads no number from the device: the longest sequence is an input on the host, so it can be captured in a
CUDA graph. The graph then serves every batch with as many sequences and none longer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..call import Call
from ..eight_bits import NONE
from ..gpu_launch import blocks, may_overlap
from .gpu_choice import block_of, masked_tile, plain_tile
from .native_kernel import four_axes
from .problem import Problem

Tensor = torch.Tensor
FAR = 1 << 30  # more than any sequence has keys, little enough to be added to a position
LOG2E = 1.4426950408889634
_EMPTY = {"zeros": 0, "as_unmasked": 1, "uniform": 2}


@dataclass(frozen=True)
class Longest:
    """The most queries and keys of a sequence."""

    queries: int
    keys: int


# (problem, its context `[B, S, N, Dv]` or `[T, N, Dv]`, a view with any strides, longest): fills the context.
Attend = Callable[[Problem, Tensor, Longest], None]


def bind_plain(call: Call) -> Attend:
    """The kernel without mask tensors, for calls of which `has_masks` says nothing."""
    from .gpu_kernel import attention_tiles

    overlap, held = may_overlap(call), held_of(call)

    def run(problem: Problem, out: Tensor, longest: Longest) -> None:
        if out.numel() == 0:
            return
        sizes = Sizes.of(problem)
        mean = longest.queries if problem.cu_q is None else out.shape[0] // sizes.batch
        tile = plain_tile(sizes.block, problem.query.element_size(), longest.queries, mean)
        tiles = blocks(longest.queries, tile.queries)
        operands, strides = operands_of(problem, out)
        attention_tiles[(tiles * sizes.heads * sizes.batch,)](
            *operands, *held, *bounds_of(problem), tiles, longest.queries, longest.keys, *positions_of(problem),
            problem.rule.scale * LOG2E, *strides, *sizes.constants, tile.queries, tile.keys,
            positional(problem), last_to_last(problem), tile.peel, _precision(problem), overlap,
            num_warps=tile.warps, num_stages=tile.stages, launch_pdl=overlap,
        )  # fmt: skip

    return run


def bind_masked(call: Call) -> Attend:
    """The kernel with mask and bias tensors, soft cap and every meaning of empty rows."""
    from .gpu_masked_kernel import masked_attention_tiles

    overlap, held = may_overlap(call), held_of(call)

    def run(problem: Problem, out: Tensor, longest: Longest) -> None:
        if out.numel() == 0:
            return
        sizes = Sizes.of(problem)
        tile = masked_tile(sizes.block, problem.query.element_size(), longest.queries)
        tiles = blocks(longest.queries, tile.queries)
        operands, strides = operands_of(problem, out)
        mask, mask_strides = _spread(problem.mask)
        bias, bias_strides = _spread(problem.bias)
        masked_attention_tiles[(tiles * sizes.heads * sizes.batch,)](
            *operands, *held, mask, bias, *bounds_of(problem), tiles, longest.queries, longest.keys,
            *positions_of(problem),
            problem.rule.scale, problem.rule.softcap, *strides, *mask_strides, *bias_strides, *sizes.constants,
            tile.queries, tile.keys, problem.rule.softcap > 0, positional(problem), last_to_last(problem),
            _EMPTY[problem.rule.empty_row], _precision(problem), overlap,
            num_warps=tile.warps, num_stages=tile.stages, launch_pdl=overlap,
        )  # fmt: skip

    return run


@dataclass(frozen=True)
class Sizes:
    """Sequences, query heads, query heads a key head, and head sizes."""

    batch: int
    heads: int
    groups: int
    size: int
    value_size: int

    @classmethod
    def of(cls, problem: Problem) -> "Sizes":
        batch = problem.query.shape[0] if problem.cu_q is None else problem.cu_q.shape[0] - 1
        heads, size = problem.query.shape[-2:]
        return cls(batch, heads, problem.groups, size, problem.value.shape[-1])

    @property
    def block(self) -> int:
        """One block for both sizes: Triton 3.6 compiles some pairs of unequal blocks to code that faults."""
        return block_of(max(self.size, self.value_size))

    @property
    def constants(self) -> tuple[int, ...]:
        return self.heads, self.groups, self.size, self.value_size, self.block


def operands_of(problem: Problem, out: Tensor) -> tuple[list[Tensor], list[int]]:
    """Query, key, value and context with contiguous heads, and for each the strides of sequence, row and head."""
    tensors = [
        x if x.stride(-1) == 1 else x.contiguous() for x in (problem.query, problem.key, problem.value)
    ] + [out]  # fmt: skip
    return strided(tensors)


def strided(tensors: list[Tensor]) -> tuple[list[Tensor], list[int]]:
    """The tensors, and for each the strides of sequence (0 when packed), row and head."""
    strides: list[int] = []
    for x in tensors:
        strides += (0, *x.stride()[:2]) if x.dim() == 3 else x.stride()[:3]
    return tensors, strides


def bounds_of(problem: Problem) -> tuple[Tensor | None, ...]:
    """Boundaries of queries and keys when packed, counts of valid keys, prefixes."""
    given = (problem.cu_q, problem.cu_kv, problem.lengths, problem.prefix_lengths)
    return tuple(None if x is None else x.contiguous() for x in given)


def positions_of(problem: Problem) -> tuple[int, int, int, int]:
    """The place of the first query (where it is one number), the reach ahead, and the window."""
    rule = problem.rule
    place = problem.offset if isinstance(problem.offset, int) else 0
    reach = FAR if rule.kind == "full" else 0
    left, right = (FAR if side < 0 else side for side in (rule.window_left, rule.window_right))
    return place, reach, left, right


def positional(problem: Problem) -> bool:
    rule = problem.rule
    return rule.kind != "full" or rule.window_left >= 0 or rule.window_right >= 0


def last_to_last(problem: Problem) -> bool:
    """The last query stands at the last valid key: packed sequences, and padded ones with an offset for each."""
    return problem.cu_q is not None or isinstance(problem.offset, Tensor)


def _spread(x: Tensor | None) -> tuple[Tensor | None, tuple[int, int, int]]:
    """A mask or bias with contiguous keys, and its strides of sequence, head and row: 0 where an axis is shared."""
    x = four_axes(x)
    if x is None:
        return None, (0, 0, 0)
    if x.dtype == torch.bool:
        x = x.view(torch.uint8)
    if x.stride(-1) != 1:
        x = x.contiguous()
    batch, head, row = (0 if size == 1 else stride for size, stride in zip(x.shape[:3], x.stride()[:3], strict=True))
    return x, (batch, head, row)


def _precision(problem: Problem) -> Any:
    """How the matrix units take float32: as three products of their short form, which keeps 21 bits."""
    return "tf32x3" if problem.query.dtype == torch.float32 else None


def held_of(call: Call) -> tuple[Tensor | None, float | None, float | None]:
    """What turns a context into eight bits: factors of its columns, the inverse of its scale, and its zero; all None
    for a context in floats."""
    if call.attributes.get("eight_bits", NONE) == NONE:
        return None, None, None
    scale, zero, factor = (None if o is None else o.constant for o in (call.input(7), call.input(8), call.input(9)))
    assert scale is not None
    columns = None if factor is None else factor.detach().contiguous()
    return columns, float(1 / scale.float()), 0.0 if zero is None else float(zero)
