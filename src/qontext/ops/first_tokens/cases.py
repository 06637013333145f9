"""Inputs of FirstTokens for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence

import torch

from ..declare import Case


def _make(lengths: Sequence[int], e: int) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        cu_seqlens = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return [torch.randn(sum(lengths), e, generator=generator).to(dtype), cu_seqlens]

    return make


def cases() -> Iterable[Case]:
    yield Case("one_token", _make((1,), 8))
    yield Case("odd", _make((3, 1, 7), 33))
    yield Case("empty_in_the_middle", _make((2, 0, 5), 12))
    yield Case("empty_at_the_end", _make((2, 5, 0), 12))
    yield Case("all_empty", _make((0, 0), 12))
    yield Case("bert_64", _make(tuple(range(1, 65)), 768), bench=True)
