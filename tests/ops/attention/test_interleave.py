"""The two orders of a fused projection: exact round trips, and the wrong order diagnosed."""

import numpy as np
import pytest
import torch
from attention_helpers import assert_close, randn

from qontext.errors import ArgumentError, ShapeError
from qontext.ops.interleave import deinterleave_qkv, diagnose_qkv_order, interleave_qkv, qkv_order
from qontext.ops.qkv_to_context.op import OP as qkv_to_context

N, D, K = 4, 8, 20


@pytest.mark.parametrize(
    ("shape", "axis"), [((3 * N * D, K), 0), ((K, 3 * N * D), 1), ((K, 3 * N * D), -1), ((3 * N * D,), 0)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_round_trip_is_exact(shape, axis, dtype):
    x = randn(0, *shape).mul(100).to(dtype)
    there = interleave_qkv(x, N, axis)
    assert there.shape == x.shape
    assert there.is_contiguous()
    assert not torch.equal(there, x)
    assert torch.equal(deinterleave_qkv(there, N, axis), x)
    assert torch.equal(interleave_qkv(deinterleave_qkv(x, N, axis), N, axis), x)


def test_order_of_the_features():
    """Feature (part, head, d) moves to (head, part, d)."""
    names = torch.arange(3 * N * D).view(3, N, D)
    there = interleave_qkv(names.flatten(), N).view(N, 3, D)
    for part in range(3):
        for head in range(N):
            assert torch.equal(there[head, part], names[part, head])


def test_numpy_arrays_stay_numpy():
    x = np.arange(3 * N * D * K, dtype=np.float16).reshape(K, 3 * N * D)
    there = interleave_qkv(x, N, axis=1)
    assert isinstance(there, np.ndarray)
    assert there.dtype == np.float16
    np.testing.assert_array_equal(deinterleave_qkv(there, N, axis=1), x)


def test_the_result_is_a_copy():
    x = randn(1, 3 * D)
    interleave_qkv(x, 1).zero_()
    assert x.abs().sum() > 0


@pytest.mark.parametrize(("shape", "heads", "axis"), [((25, K), 4, 0), ((24, K), 4, 1), ((24,), 4, 1), ((24,), 0, 0)])
def test_shapes_that_do_not_fit_are_named(shape, heads, axis):
    with pytest.raises(ShapeError, match=rf"of shape \[{', '.join(map(str, shape))}\] has no axis {axis}"):
        interleave_qkv(torch.zeros(shape), heads, axis)


def test_one_product_then_the_operator_equals_three_linear_layers():
    hidden = N * D
    weights = [randn(i, hidden, hidden) / hidden**0.5 for i in range(3)]
    biases = [randn(10 + i, hidden) for i in range(3)]
    x = randn(5, 2, 7, hidden)
    q, k, v = (
        torch.nn.functional.linear(x, w, b).view(2, 7, N, D).transpose(1, 2)
        for w, b in zip(weights, biases, strict=True)
    )
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    weight, bias = torch.cat(weights), torch.cat(biases)
    plain = torch.nn.functional.linear(x, weight, bias)
    assert_close(qkv_to_context(plain, num_heads=N, layout="B S (three N D)"), want)
    mixed = torch.nn.functional.linear(x, interleave_qkv(weight, N), interleave_qkv(bias, N))
    assert_close(qkv_to_context(mixed, num_heads=N, layout="B S (N three D)"), want)


@pytest.mark.parametrize(("shape", "axis"), [((N * D, K), 0), ((K, N * D), 1), ((N * D,), 0)])
def test_the_order_is_found(shape, axis):
    parts = [randn(i, *shape) for i in range(3)]
    plain = torch.cat(parts, axis)
    assert qkv_order(plain, *parts, N, axis) == "three N D"
    assert qkv_order(interleave_qkv(plain, N, axis), *parts, N, axis) == "N three D"
    assert qkv_order(plain.flip(axis), *parts, N, axis) is None


def test_the_wrong_order_is_diagnosed():
    """The case of a plugin fed with weights that were never interleaved: the sentence names layout and cure."""
    parts = [randn(i, N * D, K) for i in range(3)]
    plain = torch.cat(parts)
    said = diagnose_qkv_order(plain, *parts, N, layout="S B (N three D) 1 1")
    assert "layout 'S B (N three D) 1 1' expects the order 'N three D'" in said
    assert "interleave_qkv(weight, num_heads=4, axis=0)" in said
    assert "the fused weight is 'three N D'" in said
    assert diagnose_qkv_order(interleave_qkv(plain, N), *parts, N, layout="S B (N three D) 1 1") is None
    said = diagnose_qkv_order(interleave_qkv(plain, N), *parts, N, layout="B S (three N D)")
    assert "deinterleave_qkv" in said
    assert "is neither" in diagnose_qkv_order(plain + 1, *parts, N, layout="B S (three N D)")


def test_one_head_fits_both_orders():
    parts = [randn(i, D) for i in range(3)]
    for layout in ("B S (three N D)", "T (N three D)"):
        assert diagnose_qkv_order(torch.cat(parts), *parts, 1, layout=layout) is None


def test_diagnosis_of_unusable_arguments():
    parts = [randn(i, N * D, K) for i in range(3)]
    with pytest.raises(ArgumentError, match="layout 'B S E' holds neither"):
        diagnose_qkv_order(torch.cat(parts), *parts, N, layout="B S E")
    with pytest.raises(ShapeError, match=r"make \[96, 20\] along axis 0, but fused is \[20, 96\]"):
        qkv_order(torch.cat(parts).t(), *parts, N)


@pytest.mark.parametrize(
    ("layout", "shape", "other"),
    [("B S three N D", (2, 5, 4, 3, 8), "B S N three D"), ("B S N three D", (2, 5, 3, 4, 8), "B S three N D")],
)
def test_separate_axes_in_the_wrong_order_are_refused(layout, shape, other):
    with pytest.raises(
        ShapeError, match=rf"but layout '{layout}' needs \[B, S, .*\] with N=4; this is layout '{other}'"
    ):
        qkv_to_context(torch.zeros(shape), num_heads=4, layout=layout)
