"""GroupLinear on the CPU: our own product, which makes floats of the weights in the nearest cache."""

from collections.abc import Sequence
from typing import Any

import torch

from ...graph.dims import text
from ...native import linear as native_linear
from ..call import Bound, Call, Kernel
from ..linear.epilogue import NATIVE_KINDS
from ..native_kernel import dtype_of, even, even_or_none, native_is_here


def _supports(call: Call) -> str | None:
    reason = native_is_here()
    if reason is not None:
        return reason
    for name, operand in zip(("weight", "weight_scale", "weight_zero"), call.inputs[1:4], strict=True):
        assert operand is not None
        if operand.constant is None:
            return f"{name} {text(operand.shape)} is no constant, so it cannot be packed beforehand"
        if 0 in operand.constant.shape:
            return f"{name} {text(operand.shape)} is empty"
    dtype = dtype_of(call)
    if dtype == torch.float16 or not native_linear.multiplies(dtype):
        return f"the CPU kernel library multiplies no {str(dtype).removeprefix('torch.')} on this processor"
    return None


def _bind(call: Call) -> Bound:
    held = [o.constant.detach() for o in call.inputs[1:4] if o is not None and o.constant is not None]
    weight, scale, zero = (even(t) for t in held)
    group = 2 * weight.shape[1] // scale.shape[1]
    packed = native_linear.pack_groups(weight, scale, zero, group, dtype_of(call))
    multiply = native_linear.bind_linear(packed, NATIVE_KINDS.get(call.attributes["activation"]))
    features = packed.rows

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x = even(inputs[0])
        y = x.new_empty((*x.shape[:-1], features)) if out is None else out[0]
        multiply(x, even_or_none(inputs[4]), even_or_none(inputs[5]), y)
        return y

    return run


KERNELS = (Kernel("native.group_linear", "cpu", _supports, _bind, writes_out=True),)
