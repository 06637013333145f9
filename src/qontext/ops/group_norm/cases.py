"""Inputs of GroupNorm for the conformance test and for timing."""

from collections.abc import Callable, Iterable

import torch

from ..declare import Case


def _make(*shape: int) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        channels = shape[1]
        return [
            (torch.randn(*shape, generator=generator) + 0.5).to(dtype),
            (torch.randn(channels, generator=generator) + 1).to(dtype),
            torch.randn(channels, generator=generator).to(dtype),
        ]

    return make


def cases() -> Iterable[Case]:
    yield Case("one_group", _make(2, 6, 5), {"num_groups": 1})
    yield Case("image", _make(2, 6, 5, 3), {"num_groups": 3})
    yield Case("channel_each", _make(1, 4, 17), {"num_groups": 4})
    yield Case("no_spatial", _make(3, 12), {"num_groups": 2})
    yield Case("large_epsilon", _make(1, 10, 7, 1), {"num_groups": 5, "epsilon": 0.5})
    yield Case("image_64", _make(4, 64, 56, 56), {"num_groups": 32}, bench=True)
