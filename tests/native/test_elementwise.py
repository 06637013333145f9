"""Activations with bias."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from qontext import dtypes, native
from qontext.errors import ArgumentError

from .conftest import EveryISA, Guarded

REFERENCE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", REFERENCE)
@pytest.mark.parametrize("size", [1, 33, 312])
def test_with_bias(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, kind: str, size: int) -> None:
    torch.manual_seed(size)
    x, bias = (torch.randn(29, size) * 3).to(dtype), torch.randn(size).to(dtype)
    wanted = REFERENCE[kind](x.double() + bias.double())
    for isa in isas:
        out = native.bias_act(x, kind, out=guarded.empty((29, size), dtype), bias=bias)
        assert dtypes.relative_rms(out, wanted) < dtypes.from_torch(dtype).tolerance, isa


@pytest.mark.parametrize("kind", REFERENCE)
def test_every_value_is_accurate(isas: EveryISA, kind: str) -> None:
    x = torch.linspace(-9, 30, 100_003)
    wanted = REFERENCE[kind](x.double())
    for isa in isas:
        out = native.bias_act(x, kind, out=torch.empty_like(x))
        error = (out.double() - wanted).abs()
        assert bool((error <= 3e-6 * wanted.abs() + (3e-8 * x.abs() if "gelu" in kind else 0)).all()), isa
        # The rounding of x alone is 6e-8 of it; still the small values far below zero are right by themselves.
        near = (x > -5) & (wanted != 0)
        assert float((error / wanted.abs())[near].max()) < (1e-4 if "gelu" in kind else 3e-6), isa
        assert bool((out[x < -6.2].abs() <= 1e-8).all()) or kind == "silu", isa


@pytest.mark.parametrize("kind", REFERENCE)
def test_special_values(isas: EveryISA, kind: str) -> None:
    x = torch.tensor([float("inf"), float("nan"), 0.0, 1e30, -1e4])
    for isa in isas:
        out = native.bias_act(x, kind, out=torch.empty_like(x))
        assert out[0] == float("inf"), isa
        assert bool(out[1].isnan()), isa
        assert out[2] == 0, isa
        assert out[3] == x[3], isa
        assert abs(float(out[4])) < 1e-6, isa


def test_in_place_and_strided(isas: EveryISA) -> None:
    before = torch.randn(5, 90)
    for isa in isas:
        wide = before.clone()
        part = wide[:, 10:60]
        native.bias_act(part, "gelu", out=part)
        assert dtypes.relative_rms(part, F.gelu(before[:, 10:60].double())) < 1e-5, isa
        assert torch.equal(wide[:, :10], before[:, :10]), isa
        assert torch.equal(wide[:, 60:], before[:, 60:]), isa


def test_bias_in_fp32(isas: EveryISA) -> None:
    x, bias = torch.randn(8, 64).bfloat16(), torch.randn(64)
    for isa in isas:
        out = native.bias_act(x, "silu", out=torch.empty_like(x), bias=bias)
        assert dtypes.relative_rms(out, F.silu(x.double() + bias.double())) < 1e-2, isa


def test_unknown_kind(library: None) -> None:
    x = torch.zeros(3)
    with pytest.raises(ArgumentError, match="mish"):
        native.bias_act(x, "mish", out=x)
