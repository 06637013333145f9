"""Inputs of PackTokens for the conformance test and for timing."""

from collections.abc import Callable, Iterable

import torch

from ..declare import Case
from ..pack_index.cases import FULL, HOLES, LEFT_PADDED, RIGHT_PADDED, mask_of


def _make(
    batch: int, length: int, *rest: int, kind: str = RIGHT_PADDED, ids: bool = False
) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        if ids:
            x = torch.randint(0, 1000, (batch, length, *rest), generator=generator)
        else:
            x = torch.randn(batch, length, *rest, generator=generator).to(dtype)
        mask = mask_of(generator, batch, length, kind, torch.bool)
        return [x, mask.flatten().nonzero().flatten()]

    return make


def cases() -> Iterable[Case]:
    yield Case("one_token", _make(1, 1, 8, kind=FULL))
    yield Case("odd", _make(3, 7, 33))
    yield Case("left_padded", _make(5, 4, 16, kind=LEFT_PADDED))
    yield Case("holes", _make(4, 9, 12, kind=HOLES))
    yield Case("heads", _make(3, 5, 2, 7))
    yield Case("no_width", _make(3, 5))
    yield Case("ids", _make(3, 5, ids=True), dtypes=("float32",))
    yield Case("nothing_kept", _make(1, 4, 8, kind=HOLES))
    yield Case("bert_64x128", _make(64, 128, 768), bench=True)
