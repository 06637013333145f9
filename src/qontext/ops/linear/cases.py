"""Inputs of Linear for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence

import torch

from ..declare import Case

_BERT = (
    (768, 2304, "none", False),
    (768, 768, "none", True),
    (768, 3072, "gelu_erf", False),
    (3072, 768, "none", True),
)


def _make(
    lead: Sequence[int], k: int, m: int, bias: bool = True, residual: bool = False
) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(dtype)

        weight = (torch.randn(m, k, generator=generator) / k**0.5).to(dtype)
        return [
            normal(*lead, k),
            weight,
            normal(m) if bias else None,
            normal(*lead, m) if residual else None,
            None,
            None,
            None,
        ]

    return make


def _int8(
    lead: Sequence[int], k: int, m: int, bias: bool = True, residual: bool = False
) -> Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]:
    """The same with an int8 weight."""
    floats = _make(lead, k, m, bias, residual)

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        made = floats(generator, dtype)
        made[1] = torch.randint(-127, 128, (m, k), generator=generator, dtype=torch.int8)
        made[5] = (torch.rand(m, generator=generator) + 0.5) / (73 * k**0.5)
        return made

    return make


def cases() -> Iterable[Case]:
    yield Case("one", _make((1,), 1, 1))
    yield Case("odd", _make((7,), 33, 19))
    yield Case("no_bias", _make((5,), 24, 40, bias=False))
    yield Case("vector", _make((), 16, 12))
    yield Case("rank_3_residual", _make((2, 5), 48, 30, residual=True))
    yield Case("rank_4", _make((2, 3, 2), 17, 8, bias=False, residual=True))
    yield Case("long_k", _make((3,), 1031, 5))
    # What kernels for the GPU need: K that is worth splitting, and rows enough for programs that take several tiles.
    yield Case("wide_k", _make((37,), 1096, 72, residual=True), {"activation": "gelu_erf"})
    yield Case("many_rows", _make((5, 131), 72, 392, residual=True), {"activation": "gelu_erf"})
    yield Case("no_tokens", _make((0,), 8, 6, residual=True))
    yield Case("int8_weight", _int8((7,), 64, 48))
    yield Case("int8_weight_residual", _int8((2, 3), 96, 32, False, True), {"activation": "gelu_erf"})
    for activation in ("relu", "gelu_erf", "gelu_tanh", "silu"):
        yield Case(activation, _make((3, 9), 40, 56), {"activation": activation})
        yield Case(f"{activation}_residual", _make((11,), 40, 40, residual=True), {"activation": activation})
    yield Case("relu_no_bias", _make((6,), 20, 20, bias=False), {"activation": "relu"})
    for tokens in (128, 1024):
        for k, m, activation, residual in _BERT:
            name = f"bert_{tokens}x{k}x{m}"
            yield Case(name, _make((tokens,), k, m, residual=residual), {"activation": activation}, bench=True)
