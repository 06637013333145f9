"""Inputs of SkipLayerNorm for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence

import torch

from ..declare import Case
from ..eight_bits import KINDS

_BOTH = ("y", "sum")


def _make(
    lead: Sequence[int], e: int, bias: bool = True, x_bias: bool = False, static: str = "", factor: bool = False
) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    """static: what y8 is held in with a static scale; factor: its columns are multiplied first."""

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        def normal(*shape: int, mean: float = 0.0) -> torch.Tensor:
            return (torch.randn(*shape, generator=generator) + mean).to(dtype)

        return [
            normal(*lead, e, mean=0.5),
            normal(*lead, e),
            normal(e, mean=1.0),
            normal(e) if bias else None,
            normal(e) if x_bias else None,
            torch.tensor(0.02) if static else None,
            torch.tensor(101, dtype=torch.uint8) if static == "int8" else None,
            torch.rand(e, generator=generator) + 0.5 if factor else None,
        ]

    return make


def cases() -> Iterable[Case]:
    yield Case("one_row", _make((1,), 64))
    # One value has no variance: with a tiny epsilon any rounding of its mean would be multiplied without bound.
    yield Case("width_1", _make((3,), 1), {"epsilon": 0.5})
    yield Case("odd", _make((7,), 33), outputs=_BOTH)
    yield Case("rank_1", _make((), 20, x_bias=True), outputs=_BOTH)
    yield Case("rank_3", _make((2, 5), 129, x_bias=True))
    yield Case("rank_4", _make((2, 3, 2), 48, bias=False), {"epsilon": 1e-5}, outputs=_BOTH)
    yield Case("no_bias", _make((5,), 40, bias=False, x_bias=True))
    yield Case("large_epsilon", _make((4,), 31), {"epsilon": 0.5})
    yield Case("wide", _make((3,), 4097, x_bias=True), outputs=_BOTH)
    yield Case("no_rows", _make((0,), 16), outputs=_BOTH)
    for kind in KINDS:
        short, wants = "int8" if kind == "int8" else "fp8", {"eight_bits": kind}
        levels = 255 if kind == "int8" else 0
        rows = ("y", "y8", "row_scale", "row_zero")
        yield Case(
            f"{short}_by_row", _make((2, 5), 129, x_bias=True, factor=True), wants, (*rows, "sum"), levels=levels
        )
        yield Case(f"{short}_by_row_many", _make((2051,), 40), wants, rows, levels=levels)
        yield Case(
            f"{short}_static", _make((7,), 33, static=kind, factor=True), wants, ("y", "sum", "y8"), levels=levels
        )
    yield Case("bert_128", _make((128,), 768), bench=True)
    yield Case("bert_1024", _make((1024,), 768), bench=True)
    yield Case("bert_1024_x_bias", _make((1024,), 768, x_bias=True), bench=True)
