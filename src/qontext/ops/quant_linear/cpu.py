"""QuantLinear on the CPU: our own product, and oneDNN's with the rest in torch. The planner times them.

oneDNN multiplies signed activations by a reference path, thousands of times slower: it is only given unsigned ones.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...graph.dims import text
from ...native import quant_linear as native_linear
from ..call import Bound, Call, Kernel
from ..eight_bits import LEAST_RANGE
from ..linear.epilogue import NATIVE_KINDS, activation_of
from ..native_kernel import dtype_of, even, even_or_none, native_is_here


def _constants(call: Call) -> str | None:
    """None when weight and scales are constants that can be packed, else why not."""
    x, held = call.inputs[0], call.inputs[1]
    assert x is not None and held is not None
    if held.dtype != "int8":
        return f"the weight is {held.dtype}; the kernel multiplies int8"
    if x.dtype == "int8" or call.inputs[10] is not None:
        return "x or y is wanted in int8; the kernel reads and writes floats"
    for name, operand in zip(("weight", "weight_scale"), call.inputs[1:3], strict=True):
        assert operand is not None
        if operand.constant is None:
            return f"{name} {text(operand.shape)} is no constant, so it cannot be packed beforehand"
        if 0 in operand.constant.shape:
            return f"{name} {text(operand.shape)} is empty"
    for name, operand in zip(("x_scale", "x_zero", "x_factor"), call.inputs[5:8], strict=True):
        if operand is not None and operand.constant is None:
            return f"{name} is no constant"
    columns = _weight(call)[0].shape[1]
    if columns > native_linear.MOST_COLUMNS:
        return f"{columns} products of bytes leave 32 bits; the kernels sum {native_linear.MOST_COLUMNS}"
    return None


def _weight(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    weight, scale = call.inputs[1:3]
    assert weight is not None and scale is not None
    assert weight.constant is not None and scale.constant is not None
    return weight.constant.detach(), scale.constant.detach()


def _static(call: Call) -> tuple[float, int] | None:
    """Scale and zero of x when they are given."""
    scale, zero = call.inputs[5:7]
    if scale is None or zero is None:
        return None
    assert scale.constant is not None and zero.constant is not None
    return float(scale.constant), int(zero.constant)


def _factor(call: Call) -> torch.Tensor | None:
    """The factors of the columns of x when they are given."""
    factor = call.inputs[7]
    return None if factor is None or factor.constant is None else even(factor.constant.detach())


def _native_supports(call: Call) -> str | None:
    return native_is_here() or _constants(call)


def _native_bind(call: Call) -> Bound:
    weight, scale = _weight(call)
    packed = native_linear.pack_bytes(even(weight), even(scale))
    kind = NATIVE_KINDS.get(call.attributes["activation"])
    multiply = native_linear.bind_quant_linear(packed, dtype_of(call), kind, _static(call), _factor(call))
    features = packed.rows

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x = even(inputs[0])
        y = x.new_empty((*x.shape[:-1], features)) if out is None else out[0]
        multiply(x, even_or_none(inputs[3]), even_or_none(inputs[4]), y)
        return y

    return run


# x [R, K] -> (bytes uint8 [R, K], scale [R, 1] or (), zero [R, 1] or ()), float32
Quantise = Callable[[torch.Tensor], tuple[torch.Tensor, Any, Any]]


def _quantiser(static: tuple[float, int] | None, factor: torch.Tensor | None) -> Quantise:
    """Turns rows into bytes with torch's operators."""
    most = torch.tensor(255.0)

    def widened(x: torch.Tensor) -> torch.Tensor:
        return x.float() if factor is None else x.float() * factor

    def by_row(x: torch.Tensor) -> tuple[torch.Tensor, Any, Any]:
        wide = widened(x)
        low, high = torch.aminmax(wide, dim=-1, keepdim=True)
        low, span = low.clamp_max_(0), high.clamp_min_(0)
        span -= low
        empty = span < LEAST_RANGE
        scale = (span / most).masked_fill_(empty, 1)
        inverse = (most / span).masked_fill_(empty, 0)
        # A NaN or infinity in a row: aminmax hands NaN on, and an infinite scale becomes one.
        scale += scale * 0
        zero = low.neg_().mul_(inverse).round_().nan_to_num_(0.0)
        values = (wide * inverse).round_().add_(zero).nan_to_num_(0.0).clamp_(0, 255)
        return values.to(torch.uint8), scale, zero

    if static is None:
        return by_row
    scale, zero = torch.tensor(static[0]), static[1]
    inverse = torch.ones(()) / scale

    def by_tensor(x: torch.Tensor) -> tuple[torch.Tensor, Any, Any]:
        wide = widened(x)
        bad = (wide * 0).sum(-1, keepdim=True)
        values = (wide * inverse).nan_to_num_(0.0).round_().add_(zero).clamp_(0, 255)
        return values.to(torch.uint8), scale + bad, float(zero)

    return by_tensor


def _onednn_supports(call: Call) -> str | None:
    reason = _constants(call)
    if reason is not None:
        return reason
    if not torch.backends.mkldnn.is_available():
        return "this build of torch has no oneDNN"
    if call.inputs[0] is None or call.inputs[0].shape is None:
        return "the rank of x is unknown"
    return None


def _onednn_bind(call: Call) -> Bound:
    """Bytes by torch, their product by oneDNN, scales and what follows by torch again.

    oneDNN is told scale 1 and zero 0: the rows have scales of their own, and zeros are taken out with the sums of the
    weight's columns, which keeps rows with a NaN to themselves.
    """
    weight, scale = _weight(call)
    packed = torch.ops.onednn.qlinear_prepack(even(weight), None)
    sums = weight.sum(1, dtype=torch.int32).float()
    ones, zeros = torch.ones(weight.shape[0]), torch.zeros(weight.shape[0], dtype=torch.int32)
    multiply = torch.ops.onednn.qlinear_pointwise.default
    quantise, finish = _quantiser(_static(call), _factor(call)), activation_of(call)
    features, kind = weight.shape[0], dtype_of(call)
    lost = sums * scale

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, bias, residual = inputs[0], inputs[3], inputs[4]
        values, by, zero = quantise(x.reshape(-1, x.shape[-1]))
        wide = multiply(values, 1.0, 0, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], "")
        wide.mul_(scale).sub_(zero * lost).mul_(by)
        y = wide.to(kind).view(*x.shape[:-1], features)
        if finish is not None:
            finish(y, bias)
        elif bias is not None:
            y.add_(bias)
        return y if residual is None else y.add_(residual)

    return run


KERNELS = (
    Kernel("native.quant_linear", "cpu", _native_supports, _native_bind, writes_out=True, replays=lambda call: True),
    Kernel("onednn.quant_linear", "cpu", _onednn_supports, _onednn_bind),
)
