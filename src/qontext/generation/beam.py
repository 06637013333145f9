"""Beam search of one prompt: which beams go on, with which tokens, and which are finished. Knows nothing of caches.

The search is that of transformers' `generate(num_beams=...)`: of (1 + ends) * beams candidates those that do not end
go on; of the best `beams` ones those that end are finished, with the sum of their log probabilities divided by their
length to the power of `length_penalty`; it is over when no running beam can become better than the worst finished one.
"""

from collections.abc import Set
from dataclasses import dataclass, field

import torch

from ..errors import InputError, all_problems

_NEVER = -1e9  # of a beam that has not begun: below every sum of log probabilities


@dataclass(frozen=True)
class Beams:
    """How to search.

    count:          beams of each prompt
    length_penalty: over 0 longer results are preferred, below 0 shorter ones
    """

    count: int
    length_penalty: float = 1.0

    def check(self, vocabulary: int, ends: int) -> None:
        """Raises InputError for numbers that cannot be used with so many tokens, of which some end a result."""
        problems = []
        most = vocabulary // max(2, 1 + ends)
        if not 1 <= self.count <= most:
            problems.append(
                f"beams is {self.count}, allowed are 1 to {most} with {vocabulary} tokens, {ends} of them ends"
            )
        if not abs(self.length_penalty) < 100:
            problems.append(f"length_penalty is {self.length_penalty}, allowed are numbers between -100 and 100")
        if problems:
            raise InputError(all_problems("generate", problems))


@dataclass(frozen=True)
class Hypothesis:
    """A finished result: its tokens (an end is one of them) and its score."""

    tokens: tuple[int, ...]
    score: float


@dataclass
class Search:
    """The search of one prompt.

    how:        beams and penalty
    ends:       tokens that end a result
    new_tokens: of a result at most
    tokens:     of the running beams, best first; one empty list before the first step
    """

    how: Beams
    ends: Set[int]
    new_tokens: int
    tokens: list[list[int]] = field(default_factory=lambda: [[]])
    finished: list[Hypothesis] = field(default_factory=list)
    over: bool = False
    _scores: torch.Tensor = field(default_factory=lambda: torch.zeros(1))

    def advance(self, logits: torch.Tensor) -> list[int]:
        """Takes a step.

        Args:
            logits: of the next token, [running beams, V].
        Returns:
            Of which beam each of the new running beams goes on, best first.
        """
        count, vocabulary = self.how.count, logits.shape[-1]
        sums = torch.log_softmax(logits.float().cpu(), -1) + self._scores[:, None]
        most = min(max(2, 1 + len(self.ends)) * count, sums.numel())
        scores, places = sums.flatten().topk(most)
        candidates = list(zip(scores.tolist(), places.tolist(), strict=True))
        length = len(self.tokens[0]) + 1
        running: list[tuple[float, int, int]] = []
        fresh: list[Hypothesis] = []
        for rank, (score, place) in enumerate(candidates):
            parent, token = divmod(place, vocabulary)
            ends = token in self.ends or length == self.new_tokens
            if ends and rank < count:
                held = (*self.tokens[parent], token)
                fresh.append(Hypothesis(held, score / length**self.how.length_penalty))
            if not ends and len(running) < count:
                running.append((score, parent, token))
        self.finished = sorted([*self.finished, *fresh], key=lambda h: -h.score)[:count]
        self.tokens = [[*self.tokens[parent], token] for _, parent, token in running]
        self._scores = torch.tensor([score for score, _, _ in running])
        self.over = not running or self._cannot_improve(length)
        return [parent for _, parent, _ in running]

    def _cannot_improve(self, length: int) -> bool:
        if len(self.finished) < self.how.count:
            return False
        return float(self._scores[0]) / length**self.how.length_penalty <= self.finished[-1].score
