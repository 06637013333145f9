"""Inputs of GroupLinear for the conformance test and for timing."""

from collections.abc import Iterable, Sequence

import torch

from ..declare import Case
from ..quant_linear.cases import Make

_LAYERS = ((768, 3072, "gelu_erf", False), (3072, 768, "none", True), (4096, 4096, "none", False))


def _make(lead: Sequence[int], k: int, m: int, group: int, bias: bool = True, residual: bool = False) -> Make:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(dtype)

        groups = k // group
        return [
            normal(*lead, k),
            torch.randint(0, 256, (m, k // 2), generator=generator, dtype=torch.uint8),
            (torch.rand(m, groups, generator=generator) + 0.5) / (5 * k**0.5),
            torch.randint(5, 11, (m, groups), generator=generator, dtype=torch.uint8),
            normal(m) if bias else None,
            normal(*lead, m) if residual else None,
        ]

    return make


def cases() -> Iterable[Case]:
    yield Case("one", _make((1,), 2, 1, 2))
    yield Case("odd", _make((7,), 34, 19, 34))
    yield Case("small_groups", _make((5,), 24, 40, 4, bias=False))
    yield Case("groups_across_chunks", _make((3,), 660, 50, 220))
    yield Case("vector", _make((), 64, 12, 32))
    yield Case("rank_3_residual", _make((2, 5), 96, 30, 32, residual=True))
    yield Case("many_rows", _make((5, 31), 256, 392, 64, residual=True), {"activation": "gelu_erf"})
    yield Case("long_k", _make((3,), 4096, 40, 128))
    yield Case("no_tokens", _make((0,), 64, 6, 32, residual=True))
    for activation in ("relu", "gelu_tanh", "silu"):
        yield Case(activation, _make((3, 9), 128, 56, 128, residual=activation == "silu"), {"activation": activation})
    for tokens in (1, 128):
        for k, m, activation, residual in _LAYERS:
            name = f"{tokens}x{k}x{m}"
            yield Case(name, _make((tokens,), k, m, 128, residual=residual), {"activation": activation}, bench=True)
