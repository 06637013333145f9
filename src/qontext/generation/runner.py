"""One step of a program over caches: tokens of some sequences in, logits out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..runtime.executor import Executor
from .caches import Caches
from .pages import Exhausted


@dataclass
class Row:
    """A sequence, or a beam of one: the number of its prompt, its number in the caches, the tokens that lie there."""

    prompt: int
    cache: int
    cached: int = 0


class Runner:
    """Runs the programs of a decoder.

    Args:
        programs: executors of "prefill" and "decode", and of "beams" where the model has it.
        states: inputs that hold a cache -> outputs that they become.
    """

    def __init__(self, programs: Mapping[str, Executor], states: Mapping[str, str]):
        self.programs = dict(programs)
        self.states = dict(states)

    def room(self, pages: int, tokens_per_page: int) -> Caches:
        """Empty caches."""
        return Caches(self.programs["prefill"].program, list(self.states), pages, tokens_per_page)

    def run(
        self,
        name: str,
        caches: Caches,
        rows: Sequence[Row],
        tokens: Sequence[Sequence[int]],
        indirection: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Puts tokens of each row into the caches; the logits [rows, V] of their last ones.

        Args:
            indirection: of "beams": of which beam each position is read, int32 [prompts, beams, positions].
        Raises InputError when the pages run out.
        """
        counts = [len(part) for part in tokens]
        for row, count in zip(rows, counts, strict=True):
            full = caches.extend(row.cache, count)
            if isinstance(full, Exhausted):
                raise InputError(f"generate: prompt {row.prompt} is at token {row.cached}: {full}")
        executor = self.programs[name]
        lengths = torch.tensor([counts, [row.cached for row in rows]], dtype=torch.int32)
        inputs = {
            "input_ids": torch.tensor([t for part in tokens for t in part]),
            "query_lengths": lengths[0],
            "past_lengths": lengths[1],
            "block_table": caches.table([row.cache for row in rows]),
            **caches.tensors,
        }
        if indirection is not None:
            inputs["cache_indirection"] = indirection
        if "position_ids" in executor.program.inputs:
            spans = [torch.arange(row.cached, row.cached + n) for row, n in zip(rows, counts, strict=True)]
            inputs["position_ids"] = lengths[1].long() if name != "prefill" else torch.cat(spans)
        outputs = executor.run(inputs)
        caches.updated(outputs, self.states)
        for row, count in zip(rows, counts, strict=True):
            row.cached += count
        return outputs["logits"]

    def contexts(
        self, caches: Caches, rows: Sequence[Row], prompts: Sequence[Sequence[int]], most: int
    ) -> Iterator[tuple[list[Row], torch.Tensor]]:
        """Puts prompts into the caches, at most so many tokens a step; the rows that a step completes, their logits.

        Args:
            prompts: by number of the prompt.
        """
        waiting = list(rows)
        while waiting:
            members: list[Row] = []
            parts: list[Sequence[int]] = []
            left = most
            for row in waiting:
                if left == 0:
                    break
                part = prompts[row.prompt][row.cached : row.cached + left]
                left -= len(part)
                members.append(row)
                parts.append(part)
            logits = self.run("prefill", caches, members, parts)
            complete = [i for i, row in enumerate(members) if row.cached == len(prompts[row.prompt])]
            waiting = [row for row in waiting if row.cached < len(prompts[row.prompt])]
            if complete:
                yield [members[i] for i in complete], logits if len(complete) == len(members) else logits[complete]
