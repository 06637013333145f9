"""Gelu on the GPU: bias and activation in one Triton kernel (`gpu_activation_kernel.py`)."""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_activation import bind_finish
from ..gpu_launch import takes_floats
from ..kernel_checks import last_axis, last_axis_known
from ..native_kernel import even, even_or_none, place


def _supports(call: Call) -> str | None:
    x = call.inputs[0]
    assert x is not None
    reason = takes_floats(call) or last_axis_known(x, "x")
    return reason or ("x has rows of 0 elements" if last_axis(x) == 0 else None)


def _bind(call: Call) -> Bound:
    kind = "gelu_tanh" if call.attributes["approximate"] == "tanh" else "gelu_erf"
    finish = bind_finish(call, last_axis(call.inputs[0]), kind)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x = even(inputs[0])
        y = place(out, 0, x)
        finish(x, even_or_none(inputs[1]), None, y)
        return y

    return run


KERNELS = (Kernel("triton.gelu", "cuda", _supports, _bind, writes_out=True, inplace=((0, 0),)),)
