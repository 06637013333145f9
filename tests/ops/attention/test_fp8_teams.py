"""The Hopper kernel of attention in float8_e4m3 on a GPU: every kind of length, both orders, counts, neighbours, guard
bands, more keys than the ring holds. Gluon is not interpreted, so nothing here runs without such a GPU."""

import pytest
import torch

from qontext.dtypes import relative_rms
from qontext.ops.catalogue import BY_NAME
from qontext.ops.declare import call_of
from qontext.ops.device import device_of
from qontext.plugins.conformance import kernels_of, with_constants

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="needs a Hopper GPU"
    ),
]

OP = BY_NAME["QuantQKVToContext"]
FP8 = torch.float8_e4m3fn
GUARD = 4  # rows before and after the context
LENGTHS = [100, 1, 0, 64, 65, 128, 383, 384, 17, 16, 33, 200]
LONG = [5, 700, 63, 0, 1500, 2]  # more tiles of keys than the ring holds
SCALES = [0.02, 0.015, 0.01]
OUT = 0.004
# The matrix units keep 14 bits of a sum: some results round the other way. One step of e4m3 is 0.06 to 0.12.
NEAR = 0.015


def held(shape, seed):
    return torch.randn(shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda").mul(50).to(FP8)


def context(qkv, heads, layout, lengths=None, counts=None):
    """What the kernel writes for a projection, rows around it watched."""
    packed = lengths is not None
    scale = torch.tensor(SCALES, device="cuda")
    cu = longest = None
    if packed:
        cu = torch.tensor([0, *lengths]).cumsum(0).to(device="cuda", dtype=torch.int32)
        longest = torch.tensor(max(lengths), dtype=torch.int32)
    inputs = [qkv, counts, None, None, cu, longest, None, scale, torch.tensor(OUT, device="cuda")]
    settings = {"num_heads": heads, "layout": layout, "eight_bits": "float8_e4m3"}
    call = with_constants(call_of(OP, inputs, settings, (True,), device_of("cuda")), inputs)
    kernel = next(k for k in kernels_of(OP, "cuda") if k.name == "hopper.fp8_attention")
    assert kernel.supports(call) is None
    rows, width = qkv.numel() // qkv.shape[-1], qkv.shape[-1] // 3
    out = torch.full((rows + 2 * GUARD, width), 7.0, device="cuda").to(FP8)
    inner = out[GUARD:-GUARD]
    inner.view(torch.uint8).fill_(0x7F)
    kernel.bind(call)(inputs, [inner.view(*qkv.shape[:-1], width)])
    around = torch.cat([out[:GUARD], out[-GUARD:]]).float()
    assert (around == 7.0).all(), "rows around the context were written"
    here = [x.cpu() if isinstance(x, torch.Tensor) else x for x in inputs]
    return inner, OP.reference(*here, **call.attributes).reshape(rows, width)


@pytest.mark.parametrize("layout", ["T (three N D)", "T (N three D)"])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("lengths", [LENGTHS, LONG, [129]], ids=["mixed", "long", "one"])
def test_packed_sequences_of_every_length(lengths, size, layout):
    qkv = held((sum(lengths), 3 * 3 * size), sum(lengths) + size)
    got, want = context(qkv, 3, layout, lengths)
    assert relative_rms(got, want) <= NEAR
    again, _ = context(qkv, 3, layout, lengths)
    assert torch.equal(got.view(torch.uint8), again.view(torch.uint8)), "two runs differ"


def test_more_units_than_programs():
    lengths = torch.randint(0, 330, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    got, want = context(held((sum(lengths), 3 * 4 * 64), 0), 4, "T (three N D)", lengths)
    assert relative_rms(got, want) <= NEAR


@pytest.mark.parametrize("spoiled", [0, 5, 6, 11])
def test_a_sequence_of_nan_changes_no_bit_of_its_neighbours(spoiled):
    qkv = held((sum(LENGTHS), 3 * 2 * 64), 7)
    clean, _ = context(qkv, 2, "T (N three D)", LENGTHS)
    start = sum(LENGTHS[:spoiled])
    inside = torch.zeros(qkv.shape[0], dtype=torch.bool, device="cuda")
    inside[start : start + LENGTHS[spoiled]] = True
    spoilt = qkv.float()
    spoilt[inside] = torch.nan
    got, _ = context(spoilt.to(FP8), 2, "T (N three D)", LENGTHS)
    assert got.float()[inside].isnan().all()
    assert torch.equal(got.view(torch.uint8)[~inside], clean.view(torch.uint8)[~inside])


@pytest.mark.parametrize("size", [32, 64])
def test_padded_sequences_with_counts(size):
    """Keys and values behind the counted ones are NaN; a sequence without any gives zeros."""
    counts = [210, 0, 65, 129]
    wide = held((4, 210, 3 * 4 * size), size).float()
    filled = wide.clone()
    for b, n in enumerate(counts):
        filled[b, n:, 4 * size :] = torch.nan
    got, _ = context(filled.to(FP8), 4, "B S (three N D)", counts=torch.tensor(counts, device="cuda").int())
    _, want = context(wide.to(FP8), 4, "B S (three N D)", counts=torch.tensor(counts, device="cuda").int())
    assert relative_rms(got, want) <= NEAR
    assert (got.float().view(4, 210, -1)[1] == 0).all()
