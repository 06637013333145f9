"""Inputs of RMSNorm for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence

import torch

from ..declare import Case


def _make(
    lead: Sequence[int], e: int, weight: bool = True, mean: float = 0.5
) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        x = torch.randn(*lead, e, generator=generator) + mean
        return [x.to(dtype), (torch.randn(e, generator=generator) + 1).to(dtype) if weight else None]

    return make


def cases() -> Iterable[Case]:
    yield Case("one_row", _make((1,), 64))
    yield Case("width_1", _make((3,), 1))
    yield Case("odd", _make((7,), 33))
    yield Case("rank_1", _make((), 20))
    yield Case("rank_3", _make((2, 5), 129))
    yield Case("no_weight", _make((5,), 40, weight=False))
    yield Case("large_epsilon", _make((4,), 31), {"epsilon": 0.5})
    yield Case("wide", _make((3,), 4097))
    yield Case("no_rows", _make((0,), 16))
    yield Case("llama_64", _make((64,), 4096), bench=True)
