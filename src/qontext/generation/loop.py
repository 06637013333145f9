"""The generation loop: prompts are put into the caches in parts, then every step brings one token a sequence.

The loop knows sequences and steps; what a next token is says the sampler, where tokens lie say the caches, and numbers
are computed by the programs "prefill" and "decode".
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..errors import InputError, all_problems
from ..runtime.executor import Executor
from .caches import Caches
from .pages import Exhausted
from .sampler import Choose, greedy

USUAL_PAGE = 64  # tokens


@dataclass(frozen=True)
class Settings:
    """How to generate.

    new_tokens:  at most, of each sequence
    ends:        tokens that end a sequence; they are not part of the result
    tokens_per_page: of the cache; 0 takes one page a sequence, long enough for all of it (a contiguous cache)
    pages:       of the pool; 0 takes as many as the sequences can need
    prefill_tokens: prompt tokens of one step at most; longer prompts come in parts
    """

    new_tokens: int
    ends: frozenset[int] = frozenset()
    tokens_per_page: int = USUAL_PAGE
    pages: int = 0
    prefill_tokens: int = 4096


@dataclass(frozen=True)
class Step:
    """Tokens that one step has given: the prompts' numbers, their next tokens, the logits [rows, V] these came from."""

    rows: tuple[int, ...]
    tokens: tuple[int, ...]
    logits: torch.Tensor


@dataclass
class _Sequence:
    number: int
    cache: int
    prompt: Sequence[int]
    cached: int = 0
    given: list[int] = field(default_factory=list)

    @property
    def in_context(self) -> bool:
        return self.cached < len(self.prompt)


class Generator:
    """Generates with the programs of an engine; owns the caches. Generations of one engine are serialised by a lock.

    Args:
        prefill, decode: executors of the two programs.
        states: inputs that hold a cache -> outputs that they become.
        max_length: longest sequence, None for no limit.
        vocabulary: number of tokens.
    """

    def __init__(
        self,
        prefill: Executor,
        decode: Executor,
        states: Mapping[str, str],
        max_length: int | None,
        vocabulary: int,
    ):
        self._programs = {"prefill": prefill, "decode": decode}
        self._states = dict(states)
        self._max_length = max_length
        self._vocabulary = vocabulary
        self._caches: Caches | None = None
        self._lock = threading.Lock()

    @property
    def caches(self) -> Caches | None:
        """The caches of the last generation."""
        return self._caches

    def steps(self, prompts: Sequence[Sequence[int]], settings: Settings, choose: Choose = greedy) -> Iterator[Step]:
        """Generates for all prompts at once, a `Step` at a time. A sequence that has ended is in no later step.

        Raises InputError for prompts that are empty, too long or hold unknown tokens, and when the pages run out.
        """
        self._check(prompts, settings)
        with self._lock:
            caches = self._room(prompts, settings)
            waiting = [_Sequence(i, caches.open(), list(p)) for i, p in enumerate(prompts)]
            running: list[_Sequence] = []
            everyone = list(waiting)
            try:
                while waiting or running:
                    if waiting:
                        done = self._context(caches, waiting, settings.prefill_tokens, choose)
                        waiting = [s for s in waiting if s.in_context]
                    else:
                        done = self._generation(caches, running, choose)
                        running = []
                    if done is None:
                        continue
                    members, step = done
                    for sequence, token in zip(members, step.tokens, strict=True):
                        sequence.given.append(token)
                        if token not in settings.ends and len(sequence.given) < settings.new_tokens:
                            running.append(sequence)
                    yield step
            finally:
                for sequence in everyone:
                    caches.close(sequence.cache)

    def _context(
        self, caches: Caches, waiting: Sequence[_Sequence], most: int, choose: Choose
    ) -> tuple[list[_Sequence], Step] | None:
        """Puts the next prompt tokens into the caches; the step of those whose prompt is complete then."""
        parts: list[tuple[_Sequence, Sequence[int]]] = []
        left = most
        for sequence in waiting:
            if left == 0:
                break
            part = sequence.prompt[sequence.cached : sequence.cached + left]
            left -= len(part)
            parts.append((sequence, part))
        logits = self._run("prefill", caches, parts)
        complete = [i for i, (sequence, _) in enumerate(parts) if not sequence.in_context]
        if not complete:
            return None
        return self._step([parts[i][0] for i in complete], logits[complete], choose)

    def _generation(self, caches: Caches, running: Sequence[_Sequence], choose: Choose) -> tuple[list[_Sequence], Step]:
        """One more token for every running sequence."""
        logits = self._run("decode", caches, [(s, s.given[-1:]) for s in running])
        return self._step(list(running), logits, choose)

    def _step(self, members: list[_Sequence], logits: torch.Tensor, choose: Choose) -> tuple[list[_Sequence], Step]:
        tokens = choose(logits)
        return members, Step(tuple(s.number for s in members), tuple(tokens), logits)

    def _run(self, name: str, caches: Caches, parts: Sequence[tuple[_Sequence, Sequence[int]]]) -> torch.Tensor:
        """Runs a program on new tokens of sequences; the logits [rows, V] of their last ones."""
        for sequence, part in parts:
            full = caches.extend(sequence.cache, len(part))
            if isinstance(full, Exhausted):
                raise InputError(f"generate: prompt {sequence.number} is at token {sequence.cached}: {full}")
        past = [sequence.cached for sequence, _ in parts]
        counts = [len(part) for _, part in parts]
        executor = self._programs[name]
        inputs = {
            "input_ids": torch.tensor([t for _, part in parts for t in part]),
            "query_lengths": torch.tensor(counts, dtype=torch.int32),
            "past_lengths": torch.tensor(past, dtype=torch.int32),
            "block_table": caches.table([sequence.cache for sequence, _ in parts]),
        }
        if "position_ids" in executor.program.inputs:
            spans = [torch.arange(p, p + n) for p, n in zip(past, counts, strict=True)]
            inputs["position_ids"] = torch.cat(spans)
        outputs = executor.run(inputs | caches.tensors)
        caches.updated(outputs, self._states)
        for sequence, part in parts:
            sequence.cached += len(part)
        return outputs["logits"]

    def _room(self, prompts: Sequence[Sequence[int]], settings: Settings) -> Caches:
        """Caches for these prompts: the ones of the last generation where they fit."""
        lengths = [len(p) + settings.new_tokens for p in prompts]
        page = settings.tokens_per_page or max(lengths, default=1)
        count = settings.pages or max(sum(-(-n // page) for n in lengths), 1)
        old = self._caches
        if (
            old is not None
            and old.pages.tokens_per_page == page
            and (old.pages.count == count if settings.pages else old.pages.count >= count)
        ):
            return old
        self._caches = Caches(self._programs["prefill"].program, list(self._states), count, page)
        return self._caches

    def _check(self, prompts: Sequence[Sequence[int]], settings: Settings) -> None:
        problems = []
        if settings.new_tokens < 1:
            problems.append(f"max_new_tokens is {settings.new_tokens}, it has to be at least 1")
        if settings.tokens_per_page < 0 or settings.pages < 0:
            found = f"tokens_per_page is {settings.tokens_per_page} and pages {settings.pages}"
            problems.append(f"{found}; 0 or more are allowed")
        for i, prompt in enumerate(prompts):
            if not prompt:
                problems.append(f"prompt {i} is empty; a prompt has at least one token")
            elif not all(isinstance(t, int) and 0 <= t < self._vocabulary for t in prompt):
                bad = next(t for t in prompt if not isinstance(t, int) or not 0 <= t < self._vocabulary)
                problems.append(f"prompt {i} holds {bad!r}; tokens are whole numbers from 0 to {self._vocabulary - 1}")
            elif self._max_length is not None and len(prompt) + settings.new_tokens > self._max_length:
                problems.append(
                    f"prompt {i} has {len(prompt)} tokens and {settings.new_tokens} new ones are asked for; the model "
                    f"has positions for {self._max_length}"
                )
        if problems:
            raise InputError(all_problems("generate", problems))
