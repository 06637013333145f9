"""Runs on input that is packed already: sequences one after the other, their lengths given on the host.

The program sees a batch of one row that holds all tokens, in which packing and padding again are views, and the
lengths in place of what PackIndex would have found. Nothing is read back, and outputs of tokens stay packed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..builder.parts import treats_tokens_apart
from ..builder.plan import Program
from ..errors import ArgumentError, InputError, ShapeError, all_problems
from ..graph.dims import Dim
from ..graph.model import InputRule
from ..ops.call import Result, Tensors

_PACKERS = frozenset({"PackIndex", "PackTokens", "UnpackTokens"})


@dataclass(frozen=True)
class Lengths:
    """Lengths of packed sequences, as PackIndex gives them; on the host."""

    token_index: torch.Tensor
    cu_seqlens: torch.Tensor
    longest: torch.Tensor

    @property
    def sequences(self) -> int:
        return len(self.cu_seqlens) - 1


class GivenIndex:
    """Stands for PackIndex in a packed run; `lengths` is set before each."""

    def __init__(self, place: torch.device):
        self._place = place
        self.lengths: Lengths | None = None

    def __call__(self, inputs: Tensors, out: Tensors | None = None) -> Result:
        assert self.lengths is not None
        found = self.lengths
        return found.token_index.to(self._place), found.cu_seqlens.to(self._place), found.longest


def refusal(program: Program) -> str:
    """Why a program takes no packed input, in one sentence; "" when it does."""
    packers = [s for s in program.steps if s.op == "PackIndex"]
    if len(packers) != 1 or packers[0].inputs[0] not in program.inputs.values():
        return "its padding was not removed, so it knows no packed tokens"
    for step in program.steps:
        if not treats_tokens_apart(step) and step.op not in _PACKERS:
            return f"{step.name} ({step.op}) needs the padded batch"
    return ""


def lengths_of(given: Sequence[int], tokens: int, max_length: int | None) -> Lengths:
    """Checked lengths.

    Raises:
        InputError: lengths that are no whole numbers, negative, or over the limit; ShapeError: that do not add up.
    """
    try:
        counts = np.asarray(given)
    except ValueError:
        counts = np.zeros(0)
    if counts.ndim != 1 or not np.issubdtype(counts.dtype, np.integer) or not counts.size:
        raise InputError("run: lengths has to be a list of whole numbers, one for each packed sequence")
    low, high = int(counts.min()), int(counts.max())
    if low < 0:
        raise InputError(f"run: lengths holds {low}; allowed are 0 and more")
    if max_length is not None and high > max_length:
        raise InputError(f"run: a sequence of {high} tokens was given, the engine takes at most {max_length}")
    if int(counts.sum()) != tokens:
        raise ShapeError(f"run: the lengths add up to {int(counts.sum())}, the packed inputs have {tokens} tokens")
    ends = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=ends[1:])
    return Lengths(torch.arange(tokens), torch.from_numpy(ends), torch.tensor(high, dtype=torch.int32))


def as_one_row(
    program: Program,
    rules: Mapping[str, InputRule],
    given: Mapping[str, Any],
    lengths: Sequence[int],
    max_length: int | None,
) -> tuple[dict[str, torch.Tensor], Lengths]:
    """Inputs `[T, ...]` as `[1, T, ...]`, positions that begin anew with every sequence, and the lengths.

    Raises ArgumentError, InputError or ShapeError naming what cannot be used.
    """
    reason = refusal(program)
    if reason:
        raise ArgumentError(f"run: packed input (lengths=) was given, but {reason}; give a padded batch")
    mask = next(s.inputs[0] for s in program.steps if s.op == "PackIndex")
    problems = [f"input {n!r} says what is padding, and packed input has none" for n in given if _is(program, n, mask)]
    tensors = {n: torch.as_tensor(a if isinstance(a, torch.Tensor) else np.asarray(a)) for n, a in given.items()}
    problems += [f"input {n!r} is a single number, expected [T]" for n, t in tensors.items() if not t.dim()]
    counts = {n: len(t) for n, t in tensors.items() if t.dim()}
    tokens = next(iter(counts.values()), 0)
    problems += [f"input {n!r} has {c} tokens, others have {tokens}" for n, c in counts.items() if c != tokens]
    if problems:
        raise ShapeError(all_problems("run: packed input", problems))
    found = lengths_of(lengths, tokens, max_length)
    for name, rule in rules.items():
        if name in program.inputs and name not in tensors and rule.like in tensors:
            positions = _positions(rule, tensors[rule.like], found)
            if positions is not None:
                tensors[name] = positions
    return {n: t.unsqueeze(0) for n, t in tensors.items()}, found


def _is(program: Program, name: str, slot: int) -> bool:
    return program.inputs.get(name) == slot


def _positions(rule: InputRule, like: torch.Tensor, lengths: Lengths) -> torch.Tensor | None:
    """Default positions of packed tokens; None for a default that is the same for every token."""
    starts = lengths.cu_seqlens[:-1].long()
    counts = lengths.cu_seqlens.diff().long()
    place = lengths.token_index - torch.repeat_interleave(starts, counts)
    if rule.default == "arange":
        return place.to(like.device)
    if rule.default == "positions_after_padding":
        real = (like != rule.padding_idx).long()
        total = torch.cat([real.new_zeros(1), real.cumsum(0)])
        before = torch.repeat_interleave(total[starts.to(like.device)], counts.to(like.device))
        return (total[1:] - before) * real + rule.padding_idx
    return None


def batch_symbol(program: Program) -> str:
    """The name of the number of sequences."""
    mask = next(s.call.inputs[0] for s in program.steps if s.op == "PackIndex")
    assert mask is not None and mask.shape and isinstance(mask.shape[0], Dim)
    return mask.shape[0].symbols[0]


def token_outputs(program: Program) -> set[str]:
    """Names of outputs with a row for each token."""
    mask = next(s.call.inputs[0] for s in program.steps if s.op == "PackIndex")
    assert mask is not None
    found = set()
    for name, slot in program.outputs.items():
        operand = program.operands[slot]
        shape = () if operand is None else operand.shape or ()
        if len(shape) >= 2 and isinstance(shape[1], Dim) and shape[:2] == mask.shape:
            found.add(name)
    return found
