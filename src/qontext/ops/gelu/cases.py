"""Inputs of Gelu for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence

import torch

from ..declare import Case


def _make(
    shape: Sequence[int], bias: bool = False, spread: float = 2.0
) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        x = torch.randn(*shape, generator=generator) * spread
        return [x.to(dtype), torch.randn(shape[-1], generator=generator).to(dtype) if bias else None]

    return make


def cases() -> Iterable[Case]:
    for approximate in ("none", "tanh"):
        attributes = {"approximate": approximate}
        yield Case(f"{approximate}_one", _make((1,)), attributes)
        yield Case(f"{approximate}_odd_bias", _make((7, 33), bias=True), attributes)
        yield Case(f"{approximate}_rank_3", _make((2, 5, 31)), attributes)
        yield Case(f"{approximate}_rank_3_bias", _make((2, 3, 129), bias=True), attributes)
        yield Case(f"{approximate}_large_values", _make((4, 20), spread=40.0), attributes)
        yield Case(f"{approximate}_no_rows", _make((0, 8), bias=True), attributes)
        yield Case(f"{approximate}_bert_1024", _make((1024, 3072), bias=True), attributes, bench=True)
