"""Attention over bytes: every instruction set, sizes that fill no vector, rows that hold no number."""

import pytest
import torch

from qontext.dtypes import from_torch, relative_rms
from qontext.errors import ArgumentError, DTypeError
from qontext.native.quant_attention import quant_attention
from qontext.ops.catalogue import BY_NAME

from .conftest import EveryISA, Guarded

OP = BY_NAME["QuantQKVToContext"]
LEVEL = 0.25 / 127  # what is half way between two levels may be rounded either way
SIZES = [(1, 1, 1, 1), (2, 7, 3, 8), (1, 33, 2, 52), (3, 129, 1, 64), (1, 18, 2, 200)]  # B, S, N, D


def operands(size, dtype):
    torch.manual_seed(sum(size))
    b, s, n, d = size
    return torch.randn(b, s, 3 * n * d).to(dtype)


def wanted(qkv, heads, scale=None, context_scale=None, **attributes):
    complete = OP.complete_attributes({"num_heads": heads, "layout": "B S (three N D)", **attributes})
    wide = qkv if qkv.dtype == torch.int8 else qkv.double()
    scales = [None if s is None else torch.tensor(s) for s in (scale, context_scale)]
    return OP.reference(wide, *[None] * 6, *scales, **complete)


def computed(qkv, heads, out, **settings):
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).unbind(2)
    return quant_attention(q, k, v, out=out, **settings).flatten(2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sizes(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, size: tuple[int, int, int, int]) -> None:
    b, s, n, d = size
    qkv = operands(size, dtype)
    for scale, step in ((None, 0.0), (0.03, 0.0), (0.03, 1 / 127)):
        want = wanted(qkv, n, scale, dq_probs=step)
        for isa in isas:
            out = guarded.empty((b, s, n, d), dtype)
            got = computed(qkv, n, out, scales=None if scale is None else [scale] * 3, dq_probs=step)
            assert relative_rms(got, want) < max(LEVEL, from_torch(dtype).tolerance), isa


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bytes_in_and_out(isas: EveryISA, size: tuple[int, int, int, int]) -> None:
    b, s, n, d = size
    qkv = (operands(size, torch.float32) / 0.03).round().clamp(-128, 127).to(torch.int8)
    want = wanted(qkv, n, 0.03, 0.0213)
    for isa in isas:
        whole = torch.full((b * s * n * d + 128,), -77, dtype=torch.int8)
        out = whole[64:-64].view(b, s, n, d)
        got = computed(qkv, n, out, scales=[0.03] * 3, context_scale=0.0213)
        assert bool((whole[:64] == -77).all() and (whole[-64:] == -77).all()), isa
        apart = (got.double() - want).abs()
        assert apart.max() <= 1 and (apart > 0).double().mean() < 0.01, isa


def test_sums_of_extreme_bytes_do_not_saturate(isas: EveryISA, guarded: Guarded) -> None:
    """-128 times -128 and 127 times 127, over more keys than 16 bits could add up."""
    for value in (-128, 127):
        qkv = torch.full((1, 600, 3 * 64), value, dtype=torch.int8)
        for isa in isas:
            got = computed(qkv, 1, guarded.empty((1, 600, 1, 64), torch.float32), scales=[0.01] * 3)
            torch.testing.assert_close(got, torch.full_like(got, value * 0.01)), isa


def test_what_is_no_number_stays_with_its_reader(isas: EveryISA, guarded: Guarded) -> None:
    qkv = operands((2, 9, 2, 16), torch.float32)
    for part, index, lost in (
        ("query", 0, (1, 3, 1)),
        ("key", 1, (1, slice(None), 1)),
        ("value", 2, (1, slice(None), 1)),
    ):
        for bad in (torch.nan, torch.inf):
            x = qkv.clone()
            x.view(2, 9, 3, 2, 16)[1, 3, index, 1, 5] = bad
            for scales in (None, [0.03] * 3):
                for isa in isas:
                    got = computed(x, 2, guarded.empty((2, 9, 2, 16), torch.float32), scales=scales).view(2, 9, 2, 16)
                    spoiled = got.isnan().any(-1)
                    expected = torch.zeros(2, 9, 2, dtype=torch.bool)
                    expected[lost] = True
                    assert torch.equal(spoiled, expected), (part, bad, isa)
                    assert got.isnan().all(-1).sum() == spoiled.sum()


def test_heads_of_zeros(isas: EveryISA, guarded: Guarded) -> None:
    for isa in isas:
        got = computed(torch.zeros(1, 5, 3 * 24), 1, guarded.empty((1, 5, 1, 24), torch.float32))
        assert torch.equal(got, torch.zeros_like(got)), isa


def test_what_it_refuses():
    q = torch.zeros(1, 4, 1, 8)
    stored = q.to(torch.int8)
    with pytest.raises(ArgumentError, match="q is int8, but there are no scales"):
        quant_attention(stored, stored, stored, out=q.clone())
    with pytest.raises(ArgumentError, match=r"out is torch\.int8 and context_scale None"):
        quant_attention(q, q, q, out=stored.clone())
    with pytest.raises(ArgumentError, match="wanted scales over 0"):
        quant_attention(q, q, q, out=q.clone(), scales=[0.1, 0.0, 0.1])
    with pytest.raises(DTypeError, match=r"q is torch\.float64"):
        quant_attention(q.double(), q.double(), q.double(), out=q.clone())
