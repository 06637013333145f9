"""Attention where the node tests are thin: agreement with torch, fully masked rows, finite masks, half types."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from qontext.dtypes import by_name, from_torch, relative_rms
from qontext.ops.standard.catalogue import BY_NAME
from qontext.ops.standard.declare import Context


def attention(*inputs: torch.Tensor | None, outputs: int = 1, **attributes: Any) -> Any:
    return BY_NAME["Attention"].run(inputs, attributes, Context(25, (True,) * outputs))


def _qkv(
    queries: int = 5, keys: int = 7, heads: int = 6, groups: int = 2, size: int = 8, value_size: int = 12
) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(queries * keys)
    shapes = [(2, heads, queries, size), (2, groups, keys, size), (2, groups, keys, value_size)]
    return [torch.randn(s, generator=make) for s in shapes]


@pytest.mark.parametrize(("queries", "keys"), [(5, 7), (1, 9), (7, 7), (1, 1)])
@pytest.mark.parametrize("mask", ["none", "bool", "float", "causal"])
def test_equals_torch(queries: int, keys: int, mask: str) -> None:
    q, k, v = _qkv(queries, keys)
    repeated = [x.repeat_interleave(3, 1) for x in (k, v)]
    make = torch.Generator().manual_seed(3)
    allowed = torch.rand(2, 1, queries, keys, generator=make) > 0.4
    allowed[..., 0] = True
    extra = {"none": None, "bool": allowed, "float": torch.randn(6, queries, keys, generator=make)}.get(mask)
    wanted_mask = extra
    if mask == "causal":
        # Without a cache the first query stands at the first key.
        wanted_mask = torch.ones(queries, keys, dtype=torch.bool).tril()
    wanted = F.scaled_dot_product_attention(q, *repeated, attn_mask=wanted_mask)
    found = attention(q, k, v, extra, is_causal=int(mask == "causal"))
    assert relative_rms(found, wanted) <= 1e-5


def test_three_axes_equal_four() -> None:
    q, k, v = _qkv()
    flat = [x.transpose(1, 2).flatten(2) for x in (q, k, v)]
    found, present_k, present_v = attention(*flat, outputs=3, q_num_heads=6, kv_num_heads=2)
    # torch sums in another order when the operands lie in memory otherwise.
    assert relative_rms(found, attention(q, k, v).transpose(1, 2).flatten(2)) <= by_name("float32").tolerance
    assert torch.equal(present_k, k)
    assert torch.equal(present_v, v)


@pytest.mark.parametrize("causal", [0, 1])
def test_past_equals_the_whole_sequence(causal: int) -> None:
    """Token by token with a growing cache gives what one causal call gives: the mask is bottom-right aligned."""
    q, k, v = _qkv(7, 7)
    whole = attention(q, k, v, is_causal=1)
    past_k, past_v = k[:, :, :3], v[:, :, :3]
    found, present_k, present_v = attention(
        q[:, :, 3:], k[:, :, 3:], v[:, :, 3:], None, past_k, past_v, outputs=3, is_causal=causal
    )
    assert torch.equal(present_k, k)
    assert torch.equal(present_v, v)
    same = relative_rms(found, whole[:, :, 3:]) <= 1e-5
    assert same == bool(causal)


def test_external_cache_equals_the_valid_part() -> None:
    q, k, v = _qkv(2, 9)
    valid = torch.tensor([4, 9])
    found = attention(q, k, v, None, None, None, valid, is_causal=1)
    for b, length in enumerate(valid.tolist()):
        one = slice(b, b + 1)
        past = [x[one, :, : length - 2] for x in (k, v)]
        new = [x[one, :, length - 2 : length] for x in (k, v)]
        wanted = attention(q[one], *new, None, *past, is_causal=1)
        assert relative_rms(found[one], wanted) <= 1e-5


@pytest.mark.parametrize("kind", ["bool", "-inf"])
def test_fully_masked_rows_give_zeros(kind: str) -> None:
    q, k, v = _qkv()
    allowed = torch.ones(2, 1, 5, 7, dtype=torch.bool)
    allowed[1, :, 2] = False
    mask = allowed if kind == "bool" else torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))
    y, _, _, weights = attention(q, k, v, mask, outputs=4, qk_matmul_output_mode=3)
    assert torch.count_nonzero(y[1, :, 2]) == 0
    assert torch.count_nonzero(weights[1, :, 2]) == 0
    assert torch.equal(y[0], attention(q, k, v)[0])


def test_finite_masks_are_ordinary_numbers() -> None:
    """A row with -1e3 added everywhere is the unmasked row, not zeros."""
    q, k, v = _qkv()
    found = attention(q, k, v, torch.full((5, 7), -1e3))
    assert relative_rms(found, attention(q, k, v)) <= 1e-4


def test_no_keys_at_all_give_zeros() -> None:
    q, k, v = _qkv()
    assert torch.equal(attention(q, k[:, :, :0], v[:, :, :0]), torch.zeros(2, 6, 5, 12))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types(dtype: torch.dtype) -> None:
    q, k, v = _qkv(33, 130)
    found = attention(*(x.to(dtype) for x in (q, k, v)), softcap=4.0)
    assert found.dtype == dtype
    assert relative_rms(found, attention(*(x.to(dtype).double() for x in (q, k, v)), softcap=4.0)) <= (
        from_torch(dtype).tolerance
    )


def test_window_and_causal_compose() -> None:
    q, k, v = _qkv(6, 6)
    i, j = torch.arange(6).unsqueeze(1), torch.arange(6)
    for left, right, causal in itertools.product((-1, 0, 2), (-1, 1), (0, 1)):
        allowed = torch.ones(6, 6, dtype=torch.bool)
        if left >= 0:
            allowed &= j >= i - left
        if right >= 0:
            allowed &= j <= i + right
        if causal:
            allowed &= j <= i
        found = attention(q, k, v, left_window_size=left, right_window_size=right, is_causal=causal)
        assert relative_rms(found, attention(q, k, v, allowed)) <= 1e-6
