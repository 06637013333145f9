"""The generation loop: prompts are put into the caches in parts, then every step brings one token a sequence.

The loop knows sequences and steps; what a next token is says the sampler, where tokens lie say the caches, and numbers
are computed by the programs "prefill" and "decode".
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError, all_problems
from ..runtime.executor import Executor
from .beam import Beams, Hypothesis
from .beam_loop import beam_search, pages_for
from .caches import Caches
from .runner import Row, Runner
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


class Generator:
    """Generates with the programs of an engine; owns the caches. Generations of one engine are serialised by a lock.

    Args:
        programs: executors of "prefill" and "decode", and of "beams" where the model has it.
        states: inputs that hold a cache -> outputs that they become.
        max_length: longest sequence, None for no limit.
        vocabulary: number of tokens.
    """

    def __init__(
        self,
        programs: Mapping[str, Executor],
        states: Mapping[str, str],
        max_length: int | None,
        vocabulary: int,
    ):
        self._runner = Runner(programs, states)
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
            page = settings.tokens_per_page or max((len(p) + settings.new_tokens for p in prompts), default=1)
            caches = self._room(page, sum(-(-(len(p) + settings.new_tokens) // page) for p in prompts), settings.pages)
            rows = [Row(i, caches.open()) for i in range(len(prompts))]
            running: list[Row] = []
            last: dict[int, int] = {}
            try:
                for complete, logits in self._runner.contexts(caches, rows, prompts, settings.prefill_tokens):
                    yield self._step(complete, logits, choose, last)
                    running += self._going_on(complete, prompts, settings, last)
                while running:
                    logits = self._runner.run("decode", caches, running, [[last[row.prompt]] for row in running])
                    yield self._step(running, logits, choose, last)
                    running = self._going_on(running, prompts, settings, last)
            finally:
                for row in rows:
                    caches.close(row.cache)

    def search(self, prompts: Sequence[Sequence[int]], settings: Settings, beams: Beams) -> list[list[Hypothesis]]:
        """Beam search: the results of each prompt, best first.

        Raises InputError as `steps` does, and for beams that cannot be searched.
        """
        self._check(prompts, settings)
        beams.check(self._vocabulary, len(settings.ends))
        with self._lock:
            contiguous = settings.tokens_per_page == 0
            page = settings.tokens_per_page or max((len(p) + settings.new_tokens for p in prompts), default=1)
            needed = pages_for(beams, prompts, settings.new_tokens, page, contiguous)
            caches = self._room(page, needed, settings.pages)
            ends, most = settings.ends, settings.prefill_tokens
            return beam_search(self._runner, caches, prompts, beams, settings.new_tokens, ends, most, contiguous)

    def caches_after(self, prompt: Sequence[int]) -> dict[str, torch.Tensor]:
        """What a prompt puts into each cache: keys and values [2, Nkv, tokens, D].

        Raises InputError for a prompt that cannot be used.
        """
        settings = Settings(1)
        self._check([prompt], settings)
        with self._lock:
            caches = self._runner.room(1, len(prompt))
            rows = [Row(0, caches.open())]
            for _ in self._runner.contexts(caches, rows, [prompt], settings.prefill_tokens):
                pass
            return {name: tensor[0] for name, tensor in caches.tensors.items()}

    @staticmethod
    def _step(rows: Sequence[Row], logits: torch.Tensor, choose: Choose, last: dict[int, int]) -> Step:
        """The step of these rows; their tokens go into `last`."""
        numbers = tuple(row.prompt for row in rows)
        tokens = tuple(choose(numbers, logits))
        last.update(zip(numbers, tokens, strict=True))
        return Step(numbers, tokens, logits)

    @staticmethod
    def _going_on(
        rows: Sequence[Row], prompts: Sequence[Sequence[int]], settings: Settings, last: Mapping[int, int]
    ) -> list[Row]:
        """Those whose last token is no end and not the last one that was asked for."""
        most = settings.new_tokens - 1
        return [r for r in rows if last[r.prompt] not in settings.ends and r.cached - len(prompts[r.prompt]) < most]

    def _room(self, page: int, needed: int, pages: int) -> Caches:
        """Caches of `pages` pages, or of those that are needed at least: the last generation's where they fit."""
        count = pages or max(needed, 1)
        old = self._caches
        same = old is not None and old.pages.tokens_per_page == page
        if old is None or not same or old.pages.count < count or (pages and old.pages.count != pages):
            self._caches = old = self._runner.room(count, page)
        return old

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
