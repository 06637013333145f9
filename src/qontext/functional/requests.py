"""The requests of a call of `gpt_attention` as rows: one for a sequence in context phase, one a beam for the others."""

from typing import Any

import torch

from ..errors import ArgumentError, DTypeError, InputError, ShapeError, all_problems

Tensor = Any  # torch.Tensor, or a value of a network under construction


class Requests:
    """Lengths of requests, and the rows of the operator that they become.

    Raises ArgumentError or ShapeError for what is no tensor of whole numbers [B].
    """

    new: list[int]  # tokens of a row in this step
    past: list[int]  # tokens of a row in the cache
    slots: list[int]  # row of the cache or page table
    sequence: list[int]  # request of a row

    def __init__(self, tensor: Tensor, totals: Tensor, past: Tensor, contexts: Tensor, kinds: Tensor):
        if not hasattr(tensor, "shape"):
            kind = type(tensor).__name__
            raise ArgumentError(f"gpt_attention: tensor is a {kind}, expected a torch.Tensor [B, S, W] or [1, T, W]")
        self.shape = tuple(tensor.shape)
        self.totals, self.contexts = _list("sequence_length", totals), _list("context_lengths", contexts)
        self.kinds = _list("host_request_types", kinds)
        self.before = [0] * len(self.kinds) if past is None else _list("host_past_key_value_lengths", past)
        self.packed = False

    def check(self, longest: int, packed: bool, contexts: Tensor, cross: bool) -> None:
        """Raises InputError or ShapeError for lengths that do not fit each other."""
        self.packed = packed
        count = len(self.kinds)
        problems = [
            f"{name} has {len(x)} numbers, host_request_types has {count}"
            for name, x in (
                ("sequence_length", self.totals),
                ("context_lengths", self.contexts),
                ("host_past_key_value_lengths", self.before),
            )
            if len(x) != count
        ]
        if problems:
            raise ShapeError(all_problems("gpt_attention", problems))
        if contexts is not None and _list("host_context_lengths", contexts) != self.contexts:
            problems.append("host_context_lengths and context_lengths differ; they are the same numbers")
        problems += [p for r in range(count) for p in self._request_problems(r, longest, cross)]
        if len(self.shape) != 3:
            problems.append(f"tensor has shape {list(self.shape)}, it needs [B, S, W] or packed [1, T, W]")
        elif packed and self.shape[0] != 1:
            problems.append(f"tensor has shape {list(self.shape)}; with host_context_lengths it is packed, [1, T, W]")
        if problems:
            raise InputError(all_problems("gpt_attention", problems))

    def _request_problems(self, r: int, longest: int, cross: bool) -> list[str]:
        kind, new, before, total = self.kinds[r], self.contexts[r], self.before[r], self.totals[r]
        problems = []
        if kind not in (0, 1):
            problems.append(f"host_request_types of sequence {r} is {kind}, allowed are 0 and 1")
        if kind == 0 and new > longest:
            problems.append(f"context_lengths of sequence {r} is {new}, max_context_length is {longest}")
        if kind == 0 and not cross and min(new, before) >= 0 and total != before + new:
            problems.append(
                f"sequence_length of sequence {r} is {total}, but {before} tokens are in the cache and context_lengths "
                f"brings {new}"
            )
        if kind == 1 and total <= before:
            problems.append(f"sequence_length of sequence {r} is {total}, but {before} tokens are in the cache")
        return problems

    def expand(self, beams: int, cross: bool) -> None:
        """Sets new, past, slots and sequence of each row.

        Raises ShapeError when a padded tensor has another number of rows.
        """
        self.new, self.past, self.slots, self.sequence = [], [], [], []
        for r, kind in enumerate(self.kinds):
            fresh = self.contexts[r] if kind == 0 else 1 if cross else self.totals[r] - self.before[r]
            for beam in range(1 if kind == 0 else beams):
                self.new.append(fresh)
                self.past.append(self.before[r])
                self.slots.append(r * beams + beam)
                self.sequence.append(r)
        if not self.packed and isinstance(self.shape[0], int) and self.shape[0] != len(self.new):
            raise ShapeError(
                f"gpt_attention: tensor has {self.shape[0]} rows, host_request_types asks for {len(self.new)}: one for "
                f"each sequence in context phase and {beams}, one a beam, for each in generation phase"
            )

    def indirection(self, table: torch.Tensor) -> torch.Tensor:
        """The table in which sequences in context phase read their own first beam."""
        ready = table.to(torch.int32).clone()
        ready[torch.tensor(self.kinds) == 0] = 0
        return ready

    def beams(self, table: Tensor) -> int:
        """Beams of a request; 1 without `cache_indirection`. Raises DTypeError or ShapeError for one that fits not."""
        if table is None:
            return 1
        if table.is_floating_point():
            raise DTypeError(f"gpt_attention: cache_indirection is {table.dtype}, expected whole numbers")
        if table.dim() != 3 or table.shape[0] != len(self.kinds) or table.shape[1] < 1:
            raise ShapeError(
                f"gpt_attention: cache_indirection has shape {list(table.shape)}, it needs [B, beams, positions] with "
                f"B = {len(self.kinds)}"
            )
        return int(table.shape[1])


def page_table(pointers: torch.Tensor) -> torch.Tensor:
    """Page numbers [slots, M] from [slots, M], [B, beams, M] or [B, beams, 2, M].

    Raises ShapeError for other shapes, InputError for keys and values in different pages.
    """
    name = "gpt_attention: kv_cache_block_pointers"
    if pointers.dim() == 4:
        if pointers.shape[2] != 2 or not torch.equal(pointers[:, :, 0], pointers[:, :, 1]):
            raise InputError(
                f"{name} has shape {list(pointers.shape)}; its third axis, keys and values, names the same page twice"
            )
        pointers = pointers[:, :, 0]
    if pointers.dim() not in (2, 3) or pointers.shape[-1] < 1:
        raise ShapeError(
            f"{name} has shape {list(pointers.shape)}, it needs [B * beams, M], [B, beams, M] or [.., 2, M]"
        )
    return pointers.reshape(-1, pointers.shape[-1])


def _list(name: str, x: Tensor) -> list[int]:
    if not isinstance(x, torch.Tensor):
        raise ArgumentError(f"gpt_attention: {name} is a {type(x).__name__}, expected an int tensor [B]")
    if x.dim() != 1 or x.is_floating_point():
        raise ShapeError(f"gpt_attention: {name} is {x.dtype} {list(x.shape)}, expected an int tensor [B]")
    found: list[int] = x.tolist()
    return found
