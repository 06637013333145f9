"""Inputs of PackIndex for the conformance test and for timing."""

from collections.abc import Callable, Iterable

import torch

from ..declare import Case

FULL, RIGHT_PADDED, LEFT_PADDED, HOLES = "full", "right_padded", "left_padded", "holes"
_ALL = ("token_index", "cu_seqlens", "max_seqlen")


def mask_of(generator: torch.Generator, batch: int, length: int, kind: str, dtype: torch.dtype) -> torch.Tensor:
    """A mask [B, S]; every second sequence of the padded kinds is ragged, with holes a row may be empty."""
    place = torch.arange(length)[None, :]
    valid = torch.randint(1, length + 1, (batch, 1), generator=generator)
    if kind == FULL:
        keep = torch.ones(batch, length, dtype=torch.bool)
    elif kind == RIGHT_PADDED:
        keep = place < valid
    elif kind == LEFT_PADDED:
        keep = place >= length - valid
    else:
        keep = torch.rand(batch, length, generator=generator) < 0.5
        keep[batch // 2] = False
    return keep.to(dtype)


def _make(
    batch: int, length: int, kind: str, mask: torch.dtype = torch.int64
) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    return lambda generator, dtype: [mask_of(generator, batch, length, kind, mask)]


def cases() -> Iterable[Case]:
    one = {"dtypes": ("float32",), "outputs": _ALL}
    yield Case("one_token", _make(1, 1, FULL), **one)  # type: ignore[arg-type]
    for kind in (FULL, RIGHT_PADDED, LEFT_PADDED, HOLES):
        yield Case(kind, _make(5, 7, kind), **one)  # type: ignore[arg-type]
    for mask in (torch.int32, torch.bool, torch.float32):
        name = str(mask).removeprefix("torch.")
        yield Case(f"holes_{name}", _make(3, 9, HOLES, mask), **one)  # type: ignore[arg-type]
    yield Case("nothing_kept", _make(1, 4, HOLES), **one)  # type: ignore[arg-type]
    yield Case("ragged_64", _make(64, 256, RIGHT_PADDED), bench=True, **one)  # type: ignore[arg-type]
