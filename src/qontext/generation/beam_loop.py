"""Beam search over caches: beams of a paged cache share pages until they write, those of a contiguous one are found
through a table that says of which beam each position is to be read."""

from collections.abc import Sequence, Set

import torch

from ..errors import InputError
from .beam import Beams, Hypothesis, Search
from .caches import Caches
from .runner import Row, Runner


class Group:
    """The beams of one prompt in the caches.

    Args:
        first: holds the prompt.
    """

    def __init__(self, search: Search, caches: Caches, first: Row):
        self.search = search
        self.rows = [first]
        self._caches = caches

    def follow(self, parents: Sequence[int]) -> None:
        """Lets the beams go on from their parents: the first child takes its parent's place, others share its pages."""
        taken: set[int] = set()
        rows = []
        for parent in parents:
            row = self.rows[parent]
            if parent in taken:
                row = Row(row.prompt, self._caches.fork(row.cache), row.cached)
            taken.add(parent)
            rows.append(row)
        for i, row in enumerate(self.rows):
            if i not in taken:
                self._caches.close(row.cache)
        self.rows = rows

    @property
    def indirection(self) -> torch.Tensor | None:
        """Of which beam each position is read, int32 [beams, positions]; None where beams share pages."""
        return None

    def close(self) -> None:
        """Lets the caches go."""
        for row in self.rows:
            self._caches.close(row.cache)
        self.rows = []


class ContiguousGroup(Group):
    """Beams with a cache each, which stay where they are: only the table follows the parents."""

    def follow(self, parents: Sequence[int]) -> None:
        """Lets the beams go on from their parents."""
        first, count = self.rows[0], self.search.how.count
        if len(self.rows) < count:
            self._table = torch.zeros(count, self._caches.pages.tokens_per_page, dtype=torch.int32)
            for _ in range(count - 1):
                self.rows.append(Row(first.prompt, self._caches.open(), first.cached))
                self._caches.extend(self.rows[-1].cache, first.cached)
        held = first.cached
        self._table[:, :held] = self._table[list(parents), :held]
        self._table[:, held] = torch.arange(count, dtype=torch.int32)  # what this step writes is read by the next

    @property
    def indirection(self) -> torch.Tensor | None:
        """Of which beam each position is read, int32 [beams, positions]."""
        return self._table


def pages_for(how: Beams, prompts: Sequence[Sequence[int]], new_tokens: int, page: int, contiguous: bool) -> int:
    """Pages that a search can need: full pages of a prompt are shared, the others are a beam's own."""
    if contiguous:
        return how.count * len(prompts)
    shared = [len(p) // page for p in prompts]
    return sum(s + how.count * (-(-(len(p) + new_tokens) // page) - s) for p, s in zip(prompts, shared, strict=True))


def beam_search(
    runner: Runner,
    caches: Caches,
    prompts: Sequence[Sequence[int]],
    how: Beams,
    new_tokens: int,
    ends: Set[int],
    prefill_tokens: int,
    contiguous: bool,
) -> list[list[Hypothesis]]:
    """The results of each prompt, best first.

    Args:
        contiguous: a page of the caches is all of a beam.
    Raises InputError when pages run out, or when the engine has no program for beams of contiguous caches.
    """
    if contiguous and "beams" not in runner.programs:
        raise InputError(
            "generate: this engine has no program for beams of contiguous caches (engines of models with a sliding "
            "window and of older versions have none); use pages, tokens_per_page over 0"
        )
    kind = ContiguousGroup if contiguous else Group
    groups: list[Group] = []
    rows = [Row(i, caches.open()) for i in range(len(prompts))]
    groups = [kind(Search(how, ends, new_tokens), caches, row) for row in rows]
    try:
        for complete, logits in runner.contexts(caches, rows, prompts, prefill_tokens):
            for i, row in enumerate(complete):
                _advance(groups[row.prompt], logits[i : i + 1])
        while running := [g for g in groups if g.rows]:
            tables = [table for g in running if (table := g.indirection) is not None]
            logits = runner.run(
                "beams" if tables else "decode",
                caches,
                [row for g in running for row in g.rows],
                [tokens[-1:] for g in running for tokens in g.search.tokens],
                torch.stack(tables) if tables else None,
            )
            for group, part in zip(running, logits.split([len(g.rows) for g in running]), strict=True):
                _advance(group, part)
    finally:
        for group in groups:
            group.close()
    return [g.search.finished for g in groups]


def _advance(group: Group, logits: torch.Tensor) -> None:
    parents = group.search.advance(logits)
    if group.search.over:
        group.close()
    else:
        group.follow(parents)
