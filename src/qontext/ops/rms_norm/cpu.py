"""RMSNorm on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ...native.bound import bind_norm
from ..call import Bound, Call, Kernel
from ..kernel_checks import dtypes_are, last_axis, last_axis_known
from ..native_kernel import dtype_of, even, even_or_none, native_takes_rows, place


def _native_bind(call: Call) -> Bound:
    norm = bind_norm(last_axis(call.inputs[0]), dtype_of(call), eps=call.attributes["epsilon"], rms=True)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x = even(inputs[0])
        y = place(out, 0, x)
        norm(x, None, None, even_or_none(inputs[1]), None, y, None)
        return y

    return run


def _torch_supports(call: Call) -> str | None:
    x = call.inputs[0]
    assert x is not None
    return dtypes_are(call, ("float32", "float16", "bfloat16")) or last_axis_known(x, "x")


def _torch_bind(call: Call) -> Bound:
    width, epsilon = (last_axis(call.inputs[0]),), call.attributes["epsilon"]

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        return F.rms_norm(inputs[0], width, inputs[1], epsilon)

    return run


KERNELS = (
    Kernel("native.rms_norm", "cpu", native_takes_rows, _native_bind, writes_out=True, inplace=((0, 0),)),
    Kernel("torch.rms_norm", "cpu", _torch_supports, _torch_bind),
)
