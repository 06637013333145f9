"""From logits to the next tokens: the most likely one, or one drawn at random."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ..errors import InputError, all_problems


class Choose(Protocol):
    """Says the next tokens."""

    def __call__(self, rows: Sequence[int], logits: torch.Tensor) -> list[int]:
        """The next tokens of prompts `rows`, whose logits are [len(rows), V]."""
        ...


def greedy(rows: Sequence[int], logits: torch.Tensor) -> list[int]:
    """The most likely token of each row; the first of equals."""
    chosen: list[int] = logits.argmax(-1).tolist()
    return chosen


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    temperature: the logits are divided by it; 0 takes the most likely token
    top_k:       of the most likely tokens; 0 for all
    top_p:       of the fewest most likely tokens whose probabilities reach it; 1 for all
    seed:        of prompt i are the draws of a generator of its own, seeded by (seed, i): the same whatever else is in
                 the batch
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def problems(self) -> list[str]:
        """One sentence for each value that cannot be used."""
        found = []
        if not 0 <= self.temperature < math.inf:
            found.append(f"temperature is {self.temperature}, it has to be 0 (the most likely token) or more")
        if self.top_k < 0:
            found.append(f"top_k is {self.top_k}, it has to be 0 (all tokens) or more")
        if not 0 < self.top_p <= 1:
            found.append(f"top_p is {self.top_p}, it has to be over 0 and at most 1 (all tokens)")
        if not -(2**62) < self.seed < 2**62:
            found.append(f"seed is {self.seed}, it has to be a whole number below 2^62")
        if self.temperature == 0 and (self.top_k or self.top_p != 1):
            found.append(
                f"top_k is {self.top_k} and top_p {self.top_p}, but temperature is 0; drawing needs one over 0"
            )
        return found

    def chooser(self) -> Choose:
        """What chooses tokens so. Raises InputError for values that cannot be used."""
        problems = self.problems()
        if problems:
            raise InputError(all_problems("generate", problems))
        return Sampler(self) if self.temperature else greedy


def kept(logits: torch.Tensor, how: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities [rows, n], largest first, of the tokens [rows, n] that may be drawn; zero beyond `top_p`.

    The logits are divided by the temperature, then the `top_k` largest stay, and of these the first ones whose
    probabilities reach `top_p`: the one that reaches it is kept.
    """
    scaled = logits.float() / how.temperature
    count = min(how.top_k, logits.shape[-1]) or logits.shape[-1]
    top, tokens = scaled.topk(count, -1)
    shares = torch.softmax(top, -1)
    if how.top_p < 1:
        before = shares.cumsum(-1) - shares
        shares = shares.masked_fill(before >= how.top_p, 0.0)
        shares = shares / shares.sum(-1, keepdim=True)
    return shares, tokens


class Sampler:
    """Draws tokens; remembers the generator of each prompt."""

    def __init__(self, how: Sampling):
        self._how = how
        self._generators: dict[int, torch.Generator] = {}

    def __call__(self, rows: Sequence[int], logits: torch.Tensor) -> list[int]:
        """The next tokens of prompts `rows`, whose logits are [len(rows), V]: one draw of each prompt's generator.

        A row that holds NaN gives its first token: there is nothing to draw from.
        """
        shares, tokens = kept(logits, self._how)
        draws = torch.cat([torch.rand(1, 1, generator=self._generator(r), dtype=torch.float64) for r in rows])
        ends = shares.double().cumsum(-1)
        # The last token that has a share stands for what rounding leaves over.
        last = (shares > 0).sum(-1, keepdim=True).sub(1).clamp_min(0)
        index = torch.searchsorted(ends, draws.to(ends.device) * ends[:, -1:], right=True).minimum(last)
        chosen: list[int] = tokens.gather(-1, index).squeeze(-1).tolist()
        return chosen

    def _generator(self, row: int) -> torch.Generator:
        found = self._generators.get(row)
        if found is None:
            # Seeds that are near each other give unlike draws: the generator mixes all bits of what it is given.
            found = torch.Generator().manual_seed((self._how.seed * 0x9E3779B97F4A7C15 + row) % 2**63)
            self._generators[row] = found
        return found
