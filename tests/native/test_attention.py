"""Attention: sizes, layouts, packing."""

import pytest
import torch

from qontext import dtypes, native
from qontext.errors import ArgumentError, DTypeError, InputError, ShapeError

from .attention_reference import one_sequence
from .conftest import EveryISA, Guarded

FLOATS = [torch.float32, torch.bfloat16, torch.float16]


def tolerance(dtype: torch.dtype) -> float:
    return dtypes.from_torch(dtype).tolerance


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape).to(dtype)


def batch_reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: object) -> torch.Tensor:
    return torch.stack([one_sequence(*parts, **options) for parts in zip(q, k, v, strict=True)])  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", [1, 8, 24, 52, 64, 100, 128, 256])
@pytest.mark.parametrize("length", [1, 7, 33, 100])
def test_sizes(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, size: int, length: int) -> None:
    torch.manual_seed(size * length)
    q, k, v = (random(2, length, 3, size, dtype=dtype) for _ in range(3))
    wanted = batch_reference(q, k, v)
    for isa in isas:
        out = native.attention(q, k, v, out=guarded.empty((2, length, 3, size), dtype))
        assert dtypes.relative_rms(out, wanted) < tolerance(dtype), isa


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(312, 312), (5, 700), (600, 1100), (40, 3)])
def test_lengths(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, causal: bool, queries: int, keys: int) -> None:
    torch.manual_seed(queries)
    q, k, v = (
        random(1, queries, 2, 64, dtype=dtype),
        random(1, keys, 2, 64, dtype=dtype),
        random(1, keys, 2, 40, dtype=dtype),
    )
    wanted = batch_reference(q, k, v, causal=causal)
    for isa in isas:
        out = native.attention(q, k, v, out=guarded.empty((1, queries, 2, 40), dtype), causal=causal)
        assert dtypes.relative_rms(out, wanted) < tolerance(dtype), isa


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_grouped_heads_and_other_value_size(isas: EveryISA, guarded: Guarded, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    q, k, v = random(2, 50, 8, 32, dtype=dtype), random(2, 61, 2, 32, dtype=dtype), random(2, 61, 2, 80, dtype=dtype)
    wanted = batch_reference(q, k, v, causal=True, scale=0.3)
    for isa in isas:
        out = native.attention(q, k, v, out=guarded.empty((2, 50, 8, 80), dtype), causal=True, scale=0.3)
        assert dtypes.relative_rms(out, wanted) < tolerance(dtype), isa


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["B S (three N D)", "B S (N three D)", "S B (three N D)", "S B (N three D)"])
@pytest.mark.parametrize("size", [24, 64])
def test_fused_layouts(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, layout: str, size: int) -> None:
    torch.manual_seed(size)
    batch, length, heads = 3, 45, 4
    first = (length, batch) if layout.startswith("S") else (batch, length)
    qkv = random(*first, 3 * heads * size, dtype=dtype)
    order = (3, heads) if "three N D" in layout else (heads, 3)
    parts = qkv.view(*first, *order, size).unbind(2 if "three N D" in layout else 3)
    if layout.startswith("S"):
        parts = tuple(p.transpose(0, 1) for p in parts)
    wanted = batch_reference(*parts)
    for isa in isas:
        out = native.attention_fused(qkv, layout, heads, out=guarded.empty((*first, heads * size), dtype))
        out = out.transpose(0, 1) if layout.startswith("S") else out
        assert dtypes.relative_rms(out.reshape(batch, length, heads, size), wanted) < tolerance(dtype), isa


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("order", ["three N D", "N three D"])
def test_packed(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, order: str) -> None:
    torch.manual_seed(5)
    lengths, heads, size = [1, 100, 33, 0, 189, 7], 3, 64
    bounds = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    qkv = random(sum(lengths), 3 * heads * size, dtype=dtype)
    axes = (3, heads) if order == "three N D" else (heads, 3)
    q, k, v = qkv.view(-1, *axes, size).unbind(1 if order == "three N D" else 2)
    spans = [slice(a, b) for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)]
    wanted = torch.cat([one_sequence(q[at], k[at], v[at]) for at in spans])
    for isa in isas:
        out = native.attention_fused(
            qkv, f"T ({order})", heads, out=guarded.empty((sum(lengths), heads * size), dtype), cu_seqlens=bounds
        )
        assert dtypes.relative_rms(out.view(-1, heads, size), wanted) < tolerance(dtype), isa


def test_packed_cross_attention(isas: EveryISA, guarded: Guarded) -> None:
    q_bounds, k_bounds = torch.tensor([0, 5, 25], dtype=torch.int32), torch.tensor([0, 70, 81], dtype=torch.int32)
    q, k, v = random(25, 2, 16), random(81, 2, 16), random(81, 2, 16)
    for isa in isas:
        out = native.attention(
            q, k, v, out=guarded.empty((25, 2, 16), torch.float32), cu_seqlens_q=q_bounds, cu_seqlens_k=k_bounds
        )
        assert dtypes.relative_rms(out[:5], one_sequence(q[:5], k[:70], v[:70])) < 1e-5, isa
        assert dtypes.relative_rms(out[5:], one_sequence(q[5:], k[70:], v[70:])) < 1e-5, isa


def test_strided_views_and_output(isas: EveryISA) -> None:
    heads_first = random(2, 4, 30, 48)  # [B, N, S, D]
    q = k = v = heads_first.transpose(1, 2)
    for isa in isas:
        wide = torch.full((2, 30, 4, 64), 9.0)
        native.attention(q, k, v, out=wide[..., 8:56])
        assert dtypes.relative_rms(wide[..., 8:56], batch_reference(q, k, v)) < 1e-5, isa
        assert bool((wide[..., :8] == 9.0).all()), isa
        assert bool((wide[..., 56:] == 9.0).all()), isa


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("length", [40, 300, 700])
def test_scores_out_of_the_quick_range(isas: EveryISA, guarded: Guarded, dtype: torch.dtype, length: int) -> None:
    torch.manual_seed(length)
    q, k, v = (
        random(1, length, 2, 32, dtype=dtype),
        random(1, length, 2, 32, dtype=dtype),
        random(1, length, 2, 32, dtype=dtype),
    )
    low = torch.full((1, 1, 1, length), -500.0)
    for options in ({"scale": 20.0}, {"scale": -20.0}, {"bias": low}):
        wanted = batch_reference(q, k, v, scale=options.get("scale"))
        for isa in isas:
            out = native.attention(q, k, v, out=guarded.empty((1, length, 2, 32), dtype), **options)
            # One unit of the score's last place is a large share here: scores go up to 1,000.
            assert dtypes.relative_rms(out, wanted) < 10 * tolerance(dtype), (isa, options)


def test_nan_shows(isas: EveryISA) -> None:
    q, k, v = (random(1, 20, 1, 16) for _ in range(3))
    q[0, 3, 0, 5] = float("nan")
    for isa in isas:
        out = native.attention(q, k, v, out=torch.zeros_like(q))
        assert bool(out[0, 3].isnan().all()), isa
        assert not bool(out[0, [0, 1, 2, 4, 19]].isnan().any()), isa


def test_nothing_to_do(library: None) -> None:
    assert native.attention(*[torch.empty(0, 5, 2, 8)] * 3, out=torch.empty(0, 5, 2, 8)).numel() == 0
    out = native.attention(
        random(1, 4, 2, 8), torch.empty(1, 0, 2, 8), torch.empty(1, 0, 2, 8), out=torch.full((1, 4, 2, 8), 3.0)
    )
    assert not out.any()


def test_leaves_the_tiles_of_others_alone(isas: EveryISA) -> None:
    x, w = random(64, 256, dtype=torch.bfloat16), random(256, 256, dtype=torch.bfloat16)
    wanted = torch.nn.functional.linear(x, w)
    for isa in isas:
        q = random(1, 64, 4, 64, dtype=torch.bfloat16)
        native.attention(q, q, q, out=torch.empty_like(q))
        assert torch.equal(torch.nn.functional.linear(x, w), wanted), isa


def test_wrong_arguments_are_named(library: None) -> None:
    q, k, out = random(1, 4, 2, 8), random(1, 6, 2, 8), torch.empty(1, 4, 2, 8)
    with pytest.raises(ShapeError, match="k has shape"):
        native.attention(q, random(1, 6, 2, 7), k, out=out)
    with pytest.raises(ShapeError, match="out has shape"):
        native.attention(q, k, k, out=torch.empty(1, 5, 2, 8))
    with pytest.raises(DTypeError, match=r"v is torch\.bfloat16"):
        native.attention(q, k, k.bfloat16(), out=out)
    with pytest.raises(ShapeError, match="not a multiple"):
        native.attention(random(1, 4, 3, 8), k, k, out=torch.empty(1, 4, 3, 8))
    with pytest.raises(ShapeError, match="head sizes 300"):
        native.attention(*[random(1, 2, 1, 300)] * 3, out=torch.empty(1, 2, 1, 300))
    with pytest.raises(ArgumentError, match="last axis"):
        native.attention(q.transpose(2, 3).contiguous().transpose(2, 3), k, k, out=out)
    with pytest.raises(InputError, match="kv_counts"):
        native.attention(q, k, k, out=out, kv_counts=torch.tensor([7], dtype=torch.int32))
    with pytest.raises(DTypeError, match=r"kv_counts is torch\.int64"):
        native.attention(q, k, k, out=out, kv_counts=torch.tensor([4]))
    with pytest.raises(ArgumentError, match="unknown layout"):
        native.attention_fused(q, "B S three", 2, out=out)
    with pytest.raises(ShapeError, match="bias has shape"):
        native.attention(q, k, k, out=out, bias=torch.zeros(1, 1, 4, 5))


@pytest.mark.parametrize("bounds", [[0, 9], [0, 5, 3], [-1, 4], [0, 2, 1, 4]])
def test_boundaries_outside_the_tensor(library: None, bounds: list[int]) -> None:
    q = random(8, 2, 8)
    cu = torch.tensor(bounds, dtype=torch.int32)
    with pytest.raises(InputError, match="cu_seqlens"):
        native.attention(q, q, q, out=torch.empty_like(q), cu_seqlens_q=cu, cu_seqlens_k=cu)
