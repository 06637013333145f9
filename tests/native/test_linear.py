"""Linear layers: every instruction set, odd sizes, all that follows the product."""

import pytest
import torch
import torch.nn.functional as F

from qontext import dtypes
from qontext.errors import ArgumentError, DTypeError, ShapeError
from qontext.native.linear import bind_linear, multiplies, pack_weight

from .conftest import EveryISA, Guarded

FLOATS = [torch.float32, torch.bfloat16]
ACTIVATIONS = {
    None: lambda y: y,
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
    "silu": F.silu,
}
# (rows, K, M): one of each; tails of every axis; several blocks of rows; several chunks along K; many panels.
SIZES = [(1, 1, 1), (7, 33, 19), (3, 1031, 5), (130, 77, 50), (33, 64, 97), (9, 2500, 40), (300, 700, 48), (5, 95, 800)]


def operands(rows: int, k: int, m: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(rows + k + m)
    x, w, bias, residual = torch.randn(rows, k), torch.randn(m, k) / k**0.5, torch.randn(m), torch.randn(rows, m)
    return [t.to(dtype) for t in (x, w, bias, residual)]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, size: tuple[int, int, int]) -> None:
    x, w, bias, residual = operands(*size, dtype)
    product = x.double() @ w.double().T
    for isa in isas:
        if not multiplies(dtype):
            continue
        run = bind_linear(pack_weight(w), None)
        for b, r in ((None, None), (bias, None), (None, residual), (bias, residual)):
            out = guarded.empty((size[0], size[2]), dtype)
            run(x, b, r, out)
            wanted = product + (0 if b is None else b.double()) + (0 if r is None else r.double())
            assert dtypes.relative_rms(out, wanted) < dtypes.from_torch(dtype).tolerance, isa


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, activation: str | None) -> None:
    x, w, bias, residual = operands(37, 150, 61, dtype)
    wanted = ACTIVATIONS[activation](x.double() @ w.double().T + bias.double()) + residual.double()
    for isa in isas:
        if not multiplies(dtype):
            continue
        out = guarded.empty((37, 61), dtype)
        bind_linear(pack_weight(w), activation)(x, bias, residual, out)
        assert dtypes.relative_rms(out, wanted) < dtypes.from_torch(dtype).tolerance, isa


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("size", [(2, 64, 1000), (200, 64, 48), (200, 64, 300)], ids=str)
def test_any_number_of_threads(guarded: Guarded, threads: int, size: tuple[int, int, int]) -> None:
    x, w, bias, _ = operands(*size, torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        out = guarded.empty((size[0], size[2]), torch.float32)
        bind_linear(pack_weight(w), None)(x, bias, None, out)
    finally:
        torch.set_num_threads(before)
    assert dtypes.relative_rms(out, x.double() @ w.double().T + bias.double()) < dtypes.by_name("float32").tolerance


def test_the_residual_may_be_the_result(isas: EveryISA) -> None:
    x, w, bias, residual = operands(20, 600, 70, torch.float32)
    wanted = x.double() @ w.double().T + bias.double() + residual.double()
    for isa in isas:
        out = residual.clone()
        bind_linear(pack_weight(w), None)(x, bias, out, out)
        assert dtypes.relative_rms(out, wanted) < dtypes.by_name("float32").tolerance, isa


def test_a_bad_token_stays_alone() -> None:
    x, w, bias, _ = operands(30, 100, 40, torch.float32)
    run = bind_linear(pack_weight(w), "gelu")
    clean, out = torch.empty(30, 40), torch.empty(30, 40)
    run(x, bias, None, clean)
    x[11, 3] = float("nan")
    run(x, bias, None, out)
    assert out[11].isnan().all()
    others = torch.arange(30) != 11
    assert torch.equal(out[others], clean[others])


def test_no_rows() -> None:
    x, w, bias, _ = operands(4, 8, 6, torch.float32)
    bind_linear(pack_weight(w), None)(x[:0], bias, None, torch.empty(0, 6))


def test_an_older_packing_is_read_as_it_was_made(isas: EveryISA) -> None:
    x, w, bias, _ = operands(10, 50, 30, torch.float32)
    wanted = x.double() @ w.double().T + bias.double()
    runs = [bind_linear(pack_weight(w), None) for _ in isas]
    for run in runs:  # the instruction set in force is now another one
        out = torch.empty(10, 30)
        run(x, bias, None, out)
        assert dtypes.relative_rms(out, wanted) < dtypes.by_name("float32").tolerance


def test_what_is_refused() -> None:
    w = torch.randn(6, 8)
    with pytest.raises(DTypeError, match=r"weight is torch\.float16"):
        pack_weight(w.half())
    with pytest.raises(ShapeError, match=r"weight has shape \(0, 8\)"):
        pack_weight(w[:0])
    with pytest.raises(ShapeError, match=r"\[M, K\]"):
        pack_weight(w[0])
    with pytest.raises(ArgumentError, match="must be contiguous"):
        pack_weight(w.T)
    with pytest.raises(ArgumentError, match=r"known are relu"):
        bind_linear(pack_weight(w), "mish")
    with pytest.raises(ShapeError, match="8 -> 6 got x, out"):
        bind_linear(pack_weight(w), None)(torch.randn(3, 7), None, None, torch.empty(3, 6))
