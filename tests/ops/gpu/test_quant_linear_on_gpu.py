"""QuantLinear for Hopper on more tiles than there are programs, with and without weights that stay."""

import pytest
import torch
import torch.nn.functional as F

from qontext.dtypes import by_name, relative_rms
from qontext.ops.catalogue import BY_NAME
from qontext.ops.declare import call_of
from qontext.ops.device import device_of
from qontext.ops.eight_bits import held, levels
from qontext.ops.quant_linear.gpu_alternating import KERNELS, stages_for
from qontext.plugins.conformance import with_constants

QUANT = BY_NAME["QuantLinear"]
# Rows, N and K: weights of one column after the other, of the last rows and columns parts of a tile; short and long K.
SIZES = ((5000, 1104, 1024), (4111, 1360, 752), (300, 7008, 144), (5000, 1104, 2064))
Y_SCALE = 0.02
hopper = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="needs a Hopper GPU"
    ),
]


@pytest.mark.parametrize(
    ("k", "gelu", "expected"),
    [
        (768, True, (6, True)),
        (1024, True, (4, True)),
        (1025, True, (5, False)),
        (128, True, (6, True)),
        (768, False, (5, False)),
    ],
)
def test_weights_stay_where_a_ring_of_four_buffers_fits_beside_them(k, gelu, expected):
    assert stages_for(k, gelu) == expected
    stages, resident = expected
    buffers = stages + (-(-k // 128) if resident else stages)
    results = 2 if gelu else 4  # tiles of e4m3, or of halves
    assert (buffers + results) * 128 * 128 <= 227 << 10


def problem(rows, n, k, kind, eight):
    """Operands of a call, and act(x W^T + bias) in float64."""
    generator = torch.Generator("cuda").manual_seed(rows)
    x, weight, bias = (torch.randn(*s, generator=generator, device="cuda") for s in ((rows, k), (n, k), (n,)))
    x8, scale, zero = held(x, kind)
    if kind == "int8":
        weight = (weight * 30).round().clamp(-127, 127).to(torch.int8)
    else:
        weight = (weight * 60).to(torch.float8_e4m3fn)
    weight_scale = (torch.rand(n, generator=generator, device="cuda") + 0.5) / (45 * k**0.5)
    integers, bias = kind == "int8", bias.half()
    y_scale = torch.tensor(Y_SCALE, device="cuda") if eight else None
    y_zero = torch.tensor(20, dtype=torch.uint8, device="cuda") if eight and integers else None
    inputs = [x8, weight, weight_scale, bias, None, None, None, None, scale, zero if integers else None]
    whole, step = levels(x8, scale, zero, torch.float64)
    sums = whole @ weight.double().t() * step * weight_scale.double()
    return [*inputs, y_scale, y_zero, None], F.gelu(sums + bias.double())


@pytest.mark.parametrize("eight", [True, False], ids=["eight_bits", "halves"])
@pytest.mark.parametrize("kind", ["float8_e4m3", "int8"])
@pytest.mark.parametrize("sizes", [pytest.param(s, marks=hopper) for s in SIZES], ids=str)
def test_many_tiles_a_program(sizes, kind, eight):
    inputs, want = problem(*sizes, kind, eight)
    call = with_constants(call_of(QUANT, inputs, {"activation": "gelu_erf"}, [True], device_of("cuda")), inputs)
    (kernel,) = KERNELS
    assert kernel.supports(call) is None
    run, y = kernel.bind(call), call.outputs[0]
    first = torch.empty(y.shape, dtype=y.type.torch, device="cuda")
    first.view(torch.uint8).fill_(127)  # NaN
    run(inputs, [first])
    got = first.double()
    if eight:
        got = (got + 108 if kind == "int8" else got) * Y_SCALE
        highest = 235 if kind == "int8" else 448
        want = want.clamp(-20 * Y_SCALE if kind == "int8" else None, highest * Y_SCALE)
    if eight and kind == "int8":
        assert (got - want).abs().max() <= 0.6 * Y_SCALE
    else:
        assert relative_rms(got, want) <= by_name(y.dtype).tolerance
    for _ in range(10):  # a race would not give the same bits every time
        again = torch.empty_like(first)
        again.view(torch.uint8).fill_(127)
        run(inputs, [again])
        assert torch.equal(again.view(torch.uint8), first.view(torch.uint8))
