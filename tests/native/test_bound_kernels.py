"""Kernels bound once equal the wrappers that check every call, and still refuse operands of different sizes."""

import pytest
import torch

from qontext import native
from qontext.errors import ShapeError
from qontext.native.bound import bind_activation, bind_norm

pytestmark = pytest.mark.skipif(not native.available(), reason="the CPU kernel library is absent")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rms", [False, True])
def test_norm_equals_the_wrapper(dtype, rms):
    x, skip = torch.randn(5, 33).to(dtype), torch.randn(5, 33).to(dtype)
    gamma, beta, bias = (torch.randn(33).to(dtype) for _ in range(3))
    got, got_sum, want, want_sum = (torch.full_like(x, float("nan")) for _ in range(4))
    bind_norm(33, dtype, eps=1e-5, rms=rms)(x, skip, bias, gamma, beta, got, got_sum)
    native.skip_layer_norm(x, skip, gamma, beta, out=want, bias=bias, sum_out=want_sum, eps=1e-5, rms=rms)
    assert torch.equal(got, want)
    assert torch.equal(got_sum, want_sum)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["relu", "gelu", "gelu_tanh", "silu"])
def test_activation_equals_the_wrapper(dtype, kind):
    x, bias = torch.randn(5, 33).to(dtype), torch.randn(33).to(dtype)
    want = native.bias_act(x, kind, out=torch.empty_like(x), bias=bias)
    bind_activation(33, dtype, kind)(x, bias, x)
    assert torch.equal(x, want)


def test_operands_of_different_sizes_are_refused():
    x, short = torch.randn(5, 8), torch.randn(4, 8)
    norm = bind_norm(8, torch.float32, eps=1e-5)
    for skip, out, total in ((short, x, None), (None, short, None), (None, torch.empty_like(x), short)):
        with pytest.raises(ShapeError, match=r"a layer norm have \[40, .*32.*\] elements"):
            norm(x, skip, None, None, None, out, total)
    with pytest.raises(ShapeError, match=r"an activation have \[40, 32\] elements"):
        bind_activation(8, torch.float32, "relu")(x, None, short)
