"""Inputs of LayerNorm for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence

import torch

from ..declare import Case


def normal(generator: torch.Generator, dtype: torch.dtype, *shape: int, mean: float = 0.0) -> torch.Tensor:
    return (torch.randn(*shape, generator=generator) + mean).to(dtype)


def _make(
    lead: Sequence[int], e: int, weight: bool = True, bias: bool = True, mean: float = 0.5
) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        return [
            normal(generator, dtype, *lead, e, mean=mean),
            normal(generator, dtype, e, mean=1.0) if weight else None,
            normal(generator, dtype, e) if bias else None,
        ]

    return make


def cases() -> Iterable[Case]:
    yield Case("one_row", _make((1,), 64))
    # One value has no variance: with a tiny epsilon any rounding of its mean would be multiplied without bound.
    yield Case("width_1", _make((3,), 1), {"epsilon": 0.5})
    yield Case("odd", _make((7,), 33))
    yield Case("rank_1", _make((), 20))
    yield Case("rank_3", _make((2, 5), 129))
    yield Case("rank_4", _make((2, 3, 2), 48), {"epsilon": 1e-12})
    yield Case("no_weight", _make((5,), 40, weight=False, bias=False))
    yield Case("no_bias", _make((5,), 40, bias=False))
    yield Case("bias_only", _make((5,), 40, weight=False))
    yield Case("large_epsilon", _make((4,), 31), {"epsilon": 0.5})
    yield Case("wide", _make((3,), 4097))
    yield Case("no_rows", _make((0,), 16))
    # Deviations far smaller than the mean: a variance from sums of squares in fp32 would lose them.
    yield Case(
        "far_from_zero",
        _make((4,), 256, mean=300.0),
        dtypes=("float32",),
        tolerance={"float32": 3.0},
        reason="the mean is 300 times the deviation, so inputs carry 300 times the relative error",
    )
    yield Case("bert_128", _make((128,), 768), {"epsilon": 1e-12}, bench=True)
    yield Case("bert_1024", _make((1024,), 768), {"epsilon": 1e-12}, bench=True)
