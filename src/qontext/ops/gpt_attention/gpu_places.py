"""What the kernels of GptAttention read about sequences on a GPU: counts, places in the cache, angles of positions."""

import functools
from dataclasses import dataclass

import torch

from .rotary import PAIRINGS, Rotary

Tensor = torch.Tensor
TURNS = 2048  # coarse turns, and fine ones in each, as the kernel has it


@dataclass(frozen=True)
class Places:
    """The sequences of a step and where the cache holds them; all tensors on the device, int32.

    batch:       sequences
    each:        rows that every sequence has among the tokens, those behind its queries are padding; 0: see `first`
    first:       `[B]`, each sequence's first row, where sequences follow without gaps
    queries:     `[B]`, new tokens; None: `each`
    past:        `[B]`, tokens before them; None: 0
    slots:       `[B]`, rows of the cache or of `table`; None: 0, 1, ...
    table:       `[slots, pages]`, None for a contiguous cache
    indirection: `[batch, beams, P]`, None without beams
    prefixes:    `[B]`, keys that all queries see; None: causal alone
    """

    batch: int
    each: int = 0
    first: Tensor | None = None
    queries: Tensor | None = None
    past: Tensor | None = None
    slots: Tensor | None = None
    table: Tensor | None = None
    indirection: Tensor | None = None
    prefixes: Tensor | None = None

    def capacity(self, cache: Tensor) -> int:
        """Places of a slot."""
        return cache.shape[3] * (1 if self.table is None else self.table.shape[1])


@dataclass(frozen=True)
class Angles:
    """Rotation of the first 2 * pairs elements of queries and keys.

    cos, sin:  float32, contiguous, `[., pairs]`: tables that `turns` makes, or (by_token) a row for each token
    half:      pairs are (i, i + pairs), else (2i, 2i + 1)
    """

    cos: Tensor
    sin: Tensor
    half: bool
    by_token: bool = False


@functools.lru_cache(maxsize=16)
def turns(rotary: Rotary, place: torch.device) -> Angles:
    """Angles of all positions below 2048^2 in two small tables: of multiples of 2048, then of what is left.

    A table of positions would have to grow with the longest sequence, and a CUDA graph could not follow it. The sum of
    two angles costs four products and keeps float32's accuracy. Only for scalings that do not depend on lengths.
    """
    coarse, fine = (rotary.angles(torch.arange(TURNS) * step, 0) for step in (TURNS, 1))
    size = rotary.tempered  # both tables carry it, their products shall carry it once
    cos, sin = (torch.cat([a / size, b]).float().to(place) for a, b in zip(coarse, fine, strict=True))
    return Angles(cos.contiguous(), sin.contiguous(), rotary.pairing == PAIRINGS["rope_gpt_neox"])
