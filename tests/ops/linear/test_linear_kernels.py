"""Linear beyond the conformance test: packed weights under changing token counts, reserved dtypes, refusals."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from qontext import native
from qontext.dtypes import by_name, relative_rms
from qontext.errors import ShapeError
from qontext.graph.dims import symbol
from qontext.ops.call import Operand
from qontext.ops.declare import call_of
from qontext.ops.linear import epilogue
from qontext.ops.linear.op import OP

KERNELS = {kernel.name: kernel for kernel in OP.kernels}


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def open_call(weight, bias, dtype, activation="none"):
    """A call over [T, K] with constant weights, as a planner makes it for packed tokens."""
    call = call_of(
        OP, [normal(4, weight.shape[1], dtype=weight.dtype), weight, bias], {"activation": activation}, (True,)
    )
    inputs = list(call.inputs)
    inputs[0] = Operand(dtype, (symbol("T"), weight.shape[1]))
    inputs[1] = replace(inputs[1], constant=weight)
    inputs[2] = replace(inputs[2], constant=bias)
    return replace(call, inputs=tuple(inputs), outputs=(Operand(dtype, (symbol("T"), weight.shape[0])),))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["onednn.linear", "mkl.linear"])
def test_packed_weights_serve_any_number_of_tokens(name, dtype):
    weight, bias = normal(70, 50, dtype=by_name(dtype).torch), normal(70, dtype=by_name(dtype).torch, seed=1)
    call = open_call(weight, bias, dtype)
    reason = KERNELS[name].supports(call)
    if reason is not None:
        pytest.skip(reason)
    run = KERNELS[name].bind(call)
    for tokens in (1, 2, 15, 16, 17, 63, 200, 513):
        x = normal(tokens, 50, dtype=weight.dtype, seed=tokens)
        want = F.linear(x.double(), weight.double(), bias.double())
        assert relative_rms(run([x, weight, bias, None]), want) <= by_name(dtype).tolerance


@pytest.mark.parametrize("name", ["onednn.linear", "mkl.linear"])
def test_packing_needs_a_constant_weight(name):
    call = open_call(normal(6, 4), normal(6), "float32")
    changing = replace(call, inputs=(call.inputs[0], replace(call.inputs[1], constant=None), *call.inputs[2:]))
    assert KERNELS[name].supports(changing) == ("the weight [6, 4] is no constant, so it cannot be packed beforehand")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_are_computed_by_the_reference_and_refused_by_the_kernels(dtype):
    x, scale = normal(5, 8), torch.rand(6, generator=torch.Generator().manual_seed(3)) + 0.1
    stored = (normal(6, 8, seed=2) * 3).round().to(dtype)
    inputs = [x, stored, None, None, None, scale, None]
    call = call_of(OP, inputs, {}, (True,))
    found = call.inputs[1].dtype
    usual = f"the weight is {found} and x is float32"
    refused = "weight_scale is no constant" if found == "int8" else f"the weight is {found}; the kernel multiplies"
    for kernel in (k for k in OP.kernels if k.device == "cpu"):
        assert (refused if kernel.name == "torch.linear_int8_weight" else usual) in kernel.supports(call)
    want = x.double() @ (stored.double() * scale.double()[:, None]).t()
    assert relative_rms(OP(*inputs), want) <= by_name("float32").tolerance


def test_scales_that_mean_nothing_are_refused():
    x, scale = normal(5, 8), torch.ones(())
    with pytest.raises(ShapeError, match=r"'weight' is int8 and needs 'weight_scale' \[M\]"):
        OP(x, torch.zeros(6, 8, dtype=torch.int8))
    with pytest.raises(ShapeError, match="'weight_scale' is given, but the weight is float32"):
        OP(x, normal(6, 8), weight_scale=torch.ones(6))
    with pytest.raises(ShapeError, match="'x_scale' is given, but float32 activations take no scale"):
        OP(x, normal(6, 8), x_scale=scale)
    with pytest.raises(ShapeError, match="int4, which is declared but cannot be computed here; GroupLinear"):
        OP.infer_outputs([Operand("float32", (5, 8)), Operand("int4", (6, 8))], {})


@pytest.mark.parametrize("activation", ["relu", "gelu_erf", "gelu_tanh", "silu"])
def test_activations_without_the_kernel_library(activation, monkeypatch):
    monkeypatch.setattr(native, "available", lambda: False)
    call = call_of(OP, [normal(3, 4), normal(5, 4)], {"activation": activation}, (True,))
    finish = epilogue.activation_of(call)
    y, bias = normal(3, 5), normal(5, seed=4)
    want = OP.reference(y.double(), torch.eye(5).double(), bias.double(), activation=activation)
    finish(y, bias)
    assert relative_rms(y, want) <= by_name("float32").tolerance
