"""Inputs of LinearSkipLayerNorm for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence

import torch

from ..declare import Case

_BOTH = ("y", "sum")


def _make(
    lead: Sequence[int], k: int, e: int, norm_bias: bool = True, bias: bool = True
) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        def normal(*shape: int, mean: float = 0.0) -> torch.Tensor:
            return (torch.randn(*shape, generator=generator) + mean).to(dtype)

        weight = (torch.randn(e, k, generator=generator) / k**0.5).to(dtype)
        return [
            normal(*lead, k),
            weight,
            normal(*lead, e, mean=0.5),
            normal(e, mean=1.0),
            normal(e) if norm_bias else None,
            normal(e) if bias else None,
        ]

    return make


def cases() -> Iterable[Case]:
    yield Case("one_row", _make((1,), 24, 64))
    # One value has no variance: with a tiny epsilon any rounding of its mean would be multiplied without bound.
    yield Case("width_1", _make((3,), 9, 1), {"epsilon": 0.5})
    yield Case("odd", _make((7,), 33, 19), outputs=_BOTH)
    yield Case("rank_1", _make((), 20, 16), outputs=_BOTH)
    yield Case("rank_3", _make((2, 5), 48, 40, norm_bias=False))
    yield Case("rank_4", _make((2, 3, 2), 16, 48, bias=False), {"epsilon": 1e-5}, outputs=_BOTH)
    yield Case("no_biases", _make((5,), 72, 40, norm_bias=False, bias=False))
    # What kernels for the GPU need: K that is worth splitting, edges in every direction.
    yield Case("long_k", _make((37,), 1096, 72), outputs=_BOTH)
    yield Case("longer_k", _make((70,), 3080, 200))
    yield Case("longest_k", _make((3,), 4104, 136), outputs=_BOTH)
    yield Case("no_rows", _make((0,), 16, 24), outputs=_BOTH)
    for tokens in (128, 1024):
        for k in (768, 3072):
            yield Case(f"bert_{tokens}x{k}", _make((tokens,), k, 768), bench=True)
