"""Attention: every kind of mask and bias, alone and together."""

from typing import Any

import pytest
import torch

from qontext import dtypes, native
from qontext.errors import ArgumentError, InputError

from .attention_reference import one_sequence
from .conftest import EveryISA, Guarded

MASKED: list[dict[str, Any]] = [
    {"causal": True},
    {"causal": True, "offset": 0},
    {"causal": True, "offset": 11},
    {"causal": True, "offset": -13},
    {"window": (5, 3)},
    {"window": (0, 0)},
    {"window": (70, -1), "causal": True},
    {"window": (-1, 4)},
    {"softcap": 2.0},
    {"softcap": 30.0, "causal": True, "window": (20, 0)},
]


def check(
    isas: EveryISA,
    guarded: Guarded,
    parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    each: list[dict[str, Any]],
    **options: Any,
) -> None:
    """Holds a call with `options` against one reference a sequence, with the options in `each`."""
    q, k, v = parts
    wanted = [one_sequence(q[b], k[b].nan_to_num(), v[b].nan_to_num(), **o) for b, o in enumerate(each)]
    for isa in isas:
        out = native.attention(q, k, v, out=guarded.empty((*q.shape[:-1], v.shape[-1]), q.dtype), **options)
        for b, options_b in enumerate(each):
            error = dtypes.relative_rms(out[b], wanted[b])
            assert error < dtypes.from_torch(q.dtype).tolerance, (isa, b, options_b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("options", MASKED, ids=str)
@pytest.mark.parametrize(("queries", "keys"), [(90, 90), (37, 150), (200, 620)])
def test_by_position(
    isas: EveryISA, guarded: Guarded, dtype: torch.dtype, options: dict[str, Any], queries: int, keys: int
) -> None:
    torch.manual_seed(keys)
    q = torch.randn(2, queries, 4, 40).to(dtype)
    k, v = torch.randn(2, keys, 2, 40).to(dtype), torch.randn(2, keys, 2, 40).to(dtype)
    check(isas, guarded, (q, k, v), [options] * 2, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_valid_counts_and_prefix(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, causal: bool) -> None:
    torch.manual_seed(0)
    counts, prefix = [70, 1, 33, 0], [5, 0, 90, 2]
    q, k, v = (torch.randn(4, 70, 2, 64).to(dtype) for _ in range(3))
    k[1, 1:] = float("nan")  # keys past the count are never looked at
    v[1, 1:] = float("nan")
    options: dict[str, Any] = {"causal": causal, "offset": 0}
    if causal:
        options["prefix"] = torch.tensor(prefix, dtype=torch.int32)
    each = [
        {"valid": c, "causal": causal, "offset": 0, "prefix": p if causal else 0}
        for c, p in zip(counts, prefix, strict=True)
    ]
    check(isas, guarded, (q, k, v), each, kv_counts=torch.tensor(counts, dtype=torch.int32), **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias_dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "shape", [(3, 4, 50, 77), (1, 4, 50, 77), (3, 1, 1, 77), (1, 1, 50, 77), (3, 4, 50, 1)], ids=str
)
def test_bias(
    isas: EveryISA, guarded: Guarded, dtype: torch.dtype, bias_dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(2)
    q, k, v = (
        torch.randn(3, 50, 4, 24).to(dtype),
        torch.randn(3, 77, 4, 24).to(dtype),
        torch.randn(3, 77, 4, 24).to(dtype),
    )
    bias = torch.randn(shape).to(bias_dtype)
    if shape[-1] > 1:
        bias[..., ::3] = float("-inf")
    each = [{"bias": bias[b % shape[0]], "causal": True} for b in range(3)]
    check(isas, guarded, (q, k, v), each, bias=bias, causal=True)


def test_bias_and_mask_with_strides(isas: EveryISA, guarded: Guarded) -> None:
    q, k, v = (torch.randn(2, 30, 2, 16) for _ in range(3))
    bias = torch.randn(2, 2, 30, 30).transpose(2, 3)
    mask = (torch.rand(30, 30, 2, 1) > 0.4).permute(2, 3, 0, 1)
    check(isas, guarded, (q, k, v), [{"bias": bias[b], "mask": mask[b]} for b in range(2)], bias=bias, mask=mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.uint8], ids=str)
@pytest.mark.parametrize("empty_row", ["zeros", "uniform"])
@pytest.mark.parametrize("keys", [33, 300])
def test_mask_with_holes(
    isas: EveryISA, guarded: Guarded, dtype: torch.dtype, mask_dtype: torch.dtype, empty_row: Any, keys: int
) -> None:
    torch.manual_seed(4)
    q, k, v = (
        torch.randn(2, 40, 2, 64).to(dtype),
        torch.randn(2, keys, 2, 64).to(dtype),
        torch.randn(2, keys, 2, 64).to(dtype),
    )
    mask = torch.rand(2, 1, 40, keys) > 0.5
    mask[0, 0, 7] = False
    mask[1, 0, 20:] = False
    mask[1, 0, 25, -1] = True
    each = [{"mask": mask[b], "empty_row": empty_row} for b in range(2)]
    check(isas, guarded, (q, k, v), each, mask=mask.to(mask_dtype), empty_row=empty_row)


def test_finite_mask_constants(isas: EveryISA, guarded: Guarded) -> None:
    q, k, v = (torch.randn(2, 60, 2, 32) for _ in range(3))
    bias = torch.zeros(2, 1, 1, 60)
    bias[0, ..., 40:] = -10000.0
    bias[1] = -10000.0  # every key: an ordinary softmax, not an empty row
    for isa in isas:
        out = native.attention(q, k, v, out=guarded.empty((2, 60, 2, 32), torch.float32), bias=bias)
        assert dtypes.relative_rms(out[0], one_sequence(q[0], k[0, :40], v[0, :40])) < 1e-5, isa
        # Adding -10000 in fp32 rounds scores to steps of 1/1024.
        assert dtypes.relative_rms(out[1], one_sequence(q[1], k[1], v[1])) < 2e-3, isa


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_with_a_shared_bias(isas: EveryISA, guarded: Guarded, dtype: torch.dtype) -> None:
    torch.manual_seed(6)
    lengths = [12, 50, 3]
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    q, k, v = (torch.randn(65, 3, 64).to(dtype) for _ in range(3))
    bias = torch.randn(1, 3, 50, 50)
    spans = [slice(a, b) for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
    wanted = torch.cat([one_sequence(q[at], k[at], v[at], bias=bias[0]) for at in spans])
    for isa in isas:
        out = native.attention(
            q, k, v, out=guarded.empty((65, 3, 64), dtype), cu_seqlens_q=bounds, cu_seqlens_k=bounds, bias=bias
        )
        assert dtypes.relative_rms(out, wanted) < dtypes.from_torch(dtype).tolerance, isa
    with pytest.raises(InputError, match="bias or mask"):
        native.attention(
            q, k, v, out=torch.empty_like(q), cu_seqlens_q=bounds, cu_seqlens_k=bounds, bias=bias[..., :49, :]
        )


def test_prefix_needs_causal(library: None) -> None:
    q = torch.randn(1, 4, 1, 8)
    with pytest.raises(ArgumentError, match="prefix"):
        native.attention(q, q, q, out=torch.empty_like(q), prefix=torch.tensor([2], dtype=torch.int32))
