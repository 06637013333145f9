"""LinearSkipLayerNorm as two steps: any kernel of Linear, then one of SkipLayerNorm over its result in place."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..call import Bound, Call, Kernel, Operand
from ..linear import cpu, gpu_tiles, gpu_vendor
from ..linear.op import OP as LINEAR
from ..skip_layer_norm.op import OP as SKIP_LAYER_NORM

_NORMS = {"cpu": "native.skip_layer_norm", "cuda": "triton.skip_layer_norm"}
# On a GPU those that are good at a product without more: for few rows of Hopper its parts are better (`parts.py`), and
# persistent kernels need an activation to be worth their while.
_PRODUCTS = (*cpu.FLOAT_WEIGHTS, *gpu_vendor.KERNELS, *gpu_tiles.KERNELS)


def linear_call(call: Call) -> Call:
    """The product in it, bias included."""
    x, weight, skip, _, _, bias = call.inputs
    y = None if skip is None else Operand(skip.dtype, skip.shape)
    attributes = LINEAR.complete_attributes({})
    return replace(
        call, op=LINEAR.name, inputs=(x, weight, bias, None, None, None, None), outputs=(y,), attributes=attributes
    )


def norm_call(call: Call, x_bias: bool) -> Call:
    """What follows the product: with or without the layer's bias."""
    _, _, skip, weight, norm_bias, bias = call.inputs
    x = None if skip is None else Operand(skip.dtype, skip.shape)
    inputs = (x, skip, weight, norm_bias, bias if x_bias else None, None, None, None)
    attributes = SKIP_LAYER_NORM.complete_attributes({"epsilon": call.attributes["epsilon"]})
    return replace(call, op=SKIP_LAYER_NORM.name, inputs=inputs, attributes=attributes)


def _pair(linear: Kernel, norm: Kernel) -> Kernel:
    def supports(call: Call) -> str | None:
        return linear.supports(linear_call(call)) or norm.supports(norm_call(call, False))

    def bind(call: Call) -> Bound:
        first, second = linear.bind(linear_call(call)), norm.bind(norm_call(call, False))

        def run(
            inputs: Sequence[Any], out: Sequence[Any] | None = None
        ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
            x, weight, skip, norm_weight, norm_bias, bias = inputs
            operands = [x, weight, bias, None, None, None, None]
            product = first(operands, [out[0]] if linear.writes_out and out is not None else None)
            assert isinstance(product, torch.Tensor)
            y, total = second([product, skip, norm_weight, norm_bias, None, None, None, None], out)[:2]
            return y, total

        return run

    made_of = (linear, norm)
    return Kernel(f"{linear.name} + norm", linear.device, supports, bind, writes_out=norm.writes_out, made_of=made_of)


def pairs(device: str) -> tuple[Kernel, ...]:
    """A kernel for each product on that device."""
    norm = next(k for k in SKIP_LAYER_NORM.kernels if k.name == _NORMS[device])
    return tuple(_pair(k, norm) for k in _PRODUCTS if k.device == device)
