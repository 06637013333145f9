"""Inputs of QuantLinear for the conformance test and for timing."""

from collections.abc import Callable, Iterable, Sequence

import torch

from ...dtypes import by_name
from ..declare import Case
from ..eight_bits import KINDS
from ..eight_bits import held as hold

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
    kind: str = "int8",
    held: bool = False,
    y_static: float = 0.0,
    y_factor: bool = False,
) -> Make:
    """Random operands; `static` is the scale of x (0: none), `zeros` how many rows of x and of the weight are zero.

    kind: of the weight; held: x comes in eight bits, with scales of its rows unless one is static
    y_static, y_factor: y is wanted in eight bits, with this scale, columns multiplied first
    """

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[torch.Tensor | None]:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(dtype)

        def around_one(*shape: int) -> torch.Tensor:
            return torch.rand(*shape, generator=generator) + 0.5

        x = normal(*lead, k)
        integers = kind == "int8"
        weight = torch.randint(-127, 128, (m, k), generator=generator, dtype=torch.int8)
        if not integers:
            weight = weight.float().to(by_name(kind).torch)
        if zeros:
            x.view(-1, k)[:zeros] = 0
            weight[:zeros] = 0
        scale = around_one(m) / (73 * k**0.5)
        zero = torch.tensor(131, dtype=torch.uint8) if integers else None
        row_scale = row_zero = None
        if held:
            given = (torch.tensor(static), zero) if static else (None, None)
            x, row_scale, row_zero = hold(x, kind, *given)
        by_row = held and not static
        return [
            x,
            weight,
            scale,
            normal(m) if bias else None,
            normal(*lead, m) if residual else None,
            torch.tensor(static) if static else None,
            zero if static else None,
            around_one(k) if factor else None,
            row_scale if by_row else None,
            row_zero if by_row and integers else None,
            torch.tensor(y_static) if y_static else None,
            zero if y_static else None,
            around_one(m) if y_factor else None,
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
    for kind in KINDS:
        gelu = {"activation": "gelu_erf"}
        if kind != "int8":
            yield Case("fp8", _make((7,), 33, 19, kind=kind))
            yield Case("fp8_static", _make((2, 17), 96, 80, residual=True, static=0.01, kind=kind), gelu)
            yield Case("fp8_factor_zeros", _make((6,), 48, 32, zeros=3, factor=True, kind=kind))
            yield Case("fp8_many_rows", _make((2, 131), 80, 144, residual=True, kind=kind), gelu)
        levels = 255 if kind == "int8" else 0
        short = "int8" if kind == "int8" else "fp8"
        yield Case(f"{short}_held", _make((3, 5), 48, 64, kind=kind, held=True))
        yield Case(f"{short}_held_odd", _make((9,), 33, 19, kind=kind, held=True))
        yield Case(
            f"{short}_held_static", _make((70,), 80, 112, residual=True, static=0.03, kind=kind, held=True), gelu
        )
        yield Case(
            f"{short}_held_both", _make((70,), 144, 80, kind=kind, held=True, y_static=0.08), gelu, levels=levels
        )
        both = _make((37,), 64, 48, static=0.03, kind=kind, held=True, y_static=0.08, y_factor=True)
        yield Case(f"{short}_held_both_static", both, gelu, levels=levels)
        many = _make((3, 131), 144, 272, kind=kind, held=True, y_static=0.08)
        yield Case(f"{short}_held_many", many, gelu, levels=levels)
        yield Case(f"{short}_y", _make((45,), 64, 48, kind=kind, y_static=0.08, residual=True), gelu, levels=levels)
    for activation in ("relu", "gelu_erf", "gelu_tanh", "silu"):
        yield Case(activation, _make((3, 9), 40, 56), {"activation": activation})
        yield Case(f"{activation}_residual", _make((11,), 40, 40, residual=True), {"activation": activation})
    for tokens in (128, 1024):
        for k, m, activation, residual in _BERT:
            name = f"bert_{tokens}x{k}x{m}"
            yield Case(name, _make((tokens,), k, m, residual=residual), {"activation": activation}, bench=True)
