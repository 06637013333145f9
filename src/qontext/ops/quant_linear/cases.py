"""Inputs of QuantLinear for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence

import torch

from ..declare import Case

_BERT = (
    (768, 2304, "none", False),
    (768, 768, "none", True),
    (768, 3072, "gelu_erf", False),
    (3072, 768, "none", True),
)
Make = Callable[[torch.Generator, torch.dtype], list[torch.Tensor | None]]


def _make(
    lead: Sequence[int],
    k: int,
    m: int,
    bias: bool = True,
    residual: bool = False,
    static: float = 0.0,
    zeros: int = 0,
    factor: bool = False,
) -> Make:
    """Random operands; `static` is the scale of x (0: none), `zeros` how many rows of x and of the weight are zero."""

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(dtype)

        x = normal(*lead, k)
        weight = torch.randint(-127, 128, (m, k), generator=generator, dtype=torch.int8)
        if zeros:
            x.view(-1, k)[:zeros] = 0
            weight[:zeros] = 0
        scale = (torch.rand(m, generator=generator) + 0.5) / (73 * k**0.5)
        return [
            x,
            weight,
            scale,
            normal(m) if bias else None,
            normal(*lead, m) if residual else None,
            torch.tensor(static) if static else None,
            torch.tensor(131, dtype=torch.uint8) if static else None,
            torch.rand(k, generator=generator) + 0.5 if factor else None,
        ]

    return make


def cases() -> Iterable[Case]:
    yield Case("one", _make((1,), 1, 1))
    yield Case("odd", _make((7,), 33, 19))
    yield Case("no_bias", _make((5,), 24, 40, bias=False))
    yield Case("vector", _make((), 16, 12))
    yield Case("rank_3_residual", _make((2, 5), 48, 30, residual=True))
    yield Case("long_k", _make((3,), 4099, 5))
    yield Case("many_rows", _make((5, 131), 72, 392, residual=True), {"activation": "gelu_erf"})
    yield Case("no_tokens", _make((0,), 8, 6, residual=True, static=0.1))
    yield Case("zero_rows", _make((6,), 40, 21, zeros=3))
    yield Case("static", _make((9,), 40, 56, static=0.03))
    yield Case("static_cut", _make((2, 17), 130, 70, residual=True, static=0.004))
    yield Case("factor", _make((9,), 40, 56, factor=True))
    yield Case("factor_static", _make((2, 17), 131, 70, residual=True, static=0.03, factor=True))
    for activation in ("relu", "gelu_erf", "gelu_tanh", "silu"):
        yield Case(activation, _make((3, 9), 40, 56), {"activation": activation})
        yield Case(f"{activation}_residual", _make((11,), 40, 40, residual=True), {"activation": activation})
    for tokens in (128, 1024):
        for k, m, activation, residual in _BERT:
            name = f"bert_{tokens}x{k}x{m}"
            yield Case(name, _make((tokens,), k, m, residual=residual), {"activation": activation}, bench=True)
