"""Eight-bit linear layers: every instruction set, odd sizes, rows that hold nothing or no number."""

import pytest
import torch
import torch.nn.functional as F

from qontext import dtypes
from qontext.errors import ArgumentError, DTypeError, ShapeError
from qontext.native.quant_linear import MOST_COLUMNS, bind_quant_linear, pack_bytes
from qontext.ops.quant_linear.reference import reference

from .conftest import EveryISA, Guarded

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
# (rows, K, M): one of each; tails of every axis; several blocks of rows; several chunks along K; many panels.
SIZES = [(1, 1, 1), (7, 33, 19), (3, 1031, 5), (300, 77, 50), (33, 64, 97), (9, 5000, 40), (5, 95, 800)]


def operands(rows: int, k: int, m: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(rows + k + m)
    x, bias, residual = torch.randn(rows, k) - 0.3, torch.randn(m), torch.randn(rows, m)
    weight = torch.randint(-128, 128, (m, k), dtype=torch.int8)
    scale = (torch.rand(m) + 0.5) / (73 * k**0.5)
    return [x.to(dtype), weight, scale, bias.to(dtype), residual.to(dtype)]


def wanted(x, weight, scale, bias=None, residual=None, static=None, activation="none"):
    given = (None, None) if static is None else (torch.tensor(static[0]), torch.tensor(static[1]))
    rest = [None if t is None else t.double() for t in (bias, residual)]
    return reference(x.double(), weight, scale, *rest, *given, activation=activation)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, size: tuple[int, int, int]) -> None:
    x, weight, scale, bias, residual = operands(*size, dtype)
    for static in (None, (0.011, 97)):
        plain = wanted(x, weight, scale, static=static)
        for isa in isas:
            run = bind_quant_linear(pack_bytes(weight, scale), dtype, None, static)
            for b, r in ((None, None), (bias, None), (bias, residual)):
                out = guarded.empty((size[0], size[2]), dtype)
                run(x, b, r, out)
                want = plain + (0 if b is None else b.double()) + (0 if r is None else r.double())
                assert dtypes.relative_rms(out, want) < dtypes.from_torch(dtype).tolerance, isa


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "gelu_tanh", "silu"])
def test_activations(isas: EveryISA, guarded: Guarded, activation: str | None) -> None:
    x, weight, scale, bias, residual = operands(37, 150, 61, torch.float32)
    act = {
        None: lambda y: y,
        "relu": torch.relu,
        "gelu": F.gelu,
        "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
        "silu": F.silu,
    }[activation]
    want = act(wanted(x, weight, scale, bias)) + residual.double()
    for isa in isas:
        out = guarded.empty((37, 61), torch.float32)
        bind_quant_linear(pack_bytes(weight, scale), torch.float32, activation)(x, bias, residual, out)
        assert dtypes.relative_rms(out, want) < dtypes.by_name("float32").tolerance, isa


def test_sums_of_extreme_bytes_do_not_saturate(isas: EveryISA) -> None:
    """Products of two bytes, added in 16 bits, would: 255 * 127 * 2."""
    x = torch.ones(3, 4096)
    weight = torch.tensor([127, -128], dtype=torch.int8)[:, None].expand(2, 4096).contiguous()
    for isa in isas:
        out = torch.full((3, 2), float("nan"))
        bind_quant_linear(pack_bytes(weight, torch.ones(2)), torch.float32, None)(x, None, None, out)
        torch.testing.assert_close(out, torch.tensor([[127.0, -128.0]]).expand(3, 2) * 4096)
        assert isa


def test_rows_of_zeros_and_of_tiny_numbers(isas: EveryISA) -> None:
    x, weight, scale, bias, _ = operands(6, 40, 21, torch.float32)
    x[0] = 0
    x[1] = 1e-38
    x[2] = 3.0
    weight[5] = 0
    want = wanted(x, weight, scale, bias)
    for isa in isas:
        out = torch.full((6, 21), float("nan"))
        bind_quant_linear(pack_bytes(weight, scale), torch.float32, None)(x, bias, None, out)
        assert dtypes.relative_rms(out, want) < dtypes.by_name("float32").tolerance, isa
        assert torch.equal(out[0], bias) and torch.equal(out[1], bias)
        assert torch.equal(out[:, 5], bias[5].expand(6))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("static", [None, (0.05, 128)])
def test_a_bad_token_stays_alone_and_is_not_hidden(isas: EveryISA, bad: float, static) -> None:
    x, weight, scale, bias, _ = operands(30, 100, 40, torch.float32)
    broken = x.clone()
    broken[11, 97] = bad
    others = torch.arange(30) != 11
    for isa in isas:
        run = bind_quant_linear(pack_bytes(weight, scale), torch.float32, "gelu", static)
        clean, out = torch.empty(30, 40), torch.empty(30, 40)
        run(x, bias, None, clean)
        run(broken, bias, None, out)
        assert out[11].isnan().all(), isa
        assert torch.equal(out[others], clean[others]), isa


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("size", [(2, 256, 4000), (200, 64, 400)], ids=str)
def test_any_number_of_threads(guarded: Guarded, threads: int, size: tuple[int, int, int]) -> None:
    x, weight, scale, bias, _ = operands(*size, torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        out = guarded.empty((size[0], size[2]), torch.float32)
        bind_quant_linear(pack_bytes(weight, scale), torch.float32, None)(x, bias, None, out)
    finally:
        torch.set_num_threads(before)
    assert dtypes.relative_rms(out, wanted(x, weight, scale, bias)) < dtypes.by_name("float32").tolerance


def test_no_rows() -> None:
    x, weight, scale, bias, _ = operands(4, 8, 6, torch.float32)
    bind_quant_linear(pack_bytes(weight, scale), torch.float32, None)(x[:0], bias, None, torch.empty(0, 6))


def test_what_is_refused() -> None:
    weight, scale = torch.zeros(6, 8, dtype=torch.int8), torch.ones(6)
    with pytest.raises(DTypeError, match=r"weight is torch\.float32, wanted torch\.int8"):
        pack_bytes(weight.float(), scale)
    with pytest.raises(DTypeError, match="weight_scale is"):
        pack_bytes(weight, scale.double())
    with pytest.raises(ShapeError, match=r"weight_scale has shape \(5,\), wanted \(6,\)"):
        pack_bytes(weight, scale[:5])
    with pytest.raises(ShapeError, match=f"K up to {MOST_COLUMNS}"):
        pack_bytes(torch.zeros(1, MOST_COLUMNS + 1, dtype=torch.int8), scale[:1])
    packed = pack_bytes(weight, scale)
    with pytest.raises(ArgumentError, match=r"known are relu"):
        bind_quant_linear(packed, torch.float32, "mish")
    with pytest.raises(DTypeError, match=r"x is torch\.float64"):
        bind_quant_linear(packed, torch.float64, None)
    for static in ((0.0, 3), (float("nan"), 3), (float("inf"), 3), (0.1, 256), (0.1, -1)):
        with pytest.raises(ArgumentError, match=r"wanted a scale over 0 and a zero in 0\.\.255"):
            bind_quant_linear(packed, torch.float32, None, static)
    with pytest.raises(ShapeError, match="8 -> 6 got x, out"):
        bind_quant_linear(packed, torch.float32, None)(torch.randn(3, 7), None, None, torch.empty(3, 6))
