"""Gelu on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch

from ...native.bound import bind_activation
from ..call import Bound, Call, Kernel
from ..kernel_checks import dtypes_are, last_axis
from ..native_kernel import dtype_of, even, even_or_none, native_takes_rows, place


def _native_bind(call: Call) -> Bound:
    kind = "gelu_tanh" if call.attributes["approximate"] == "tanh" else "gelu"
    activate = bind_activation(last_axis(call.inputs[0]), dtype_of(call), kind)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x = even(inputs[0])
        y = place(out, 0, x)
        activate(x, even_or_none(inputs[1]), y)
        return y

    return run


def _torch_supports(call: Call) -> str | None:
    return dtypes_are(call, ("float32", "float16", "bfloat16"))


def _torch_bind(call: Call) -> Bound:
    approximate = call.attributes["approximate"]
    gelu, gelu_out, gelu_in_place = torch.ops.aten.gelu.default, torch.ops.aten.gelu.out, torch.ops.aten.gelu_.default

    def plain(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        if out is None:
            return gelu(inputs[0], approximate=approximate)
        return gelu_out(inputs[0], approximate=approximate, out=out[0])

    def with_bias(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        shifted = torch.add(inputs[0], inputs[1], out=None if out is None else out[0])
        return gelu_in_place(shifted, approximate=approximate)

    return plain if call.inputs[1] is None else with_bias


KERNELS = (
    Kernel("native.gelu", "cpu", native_takes_rows, _native_bind, writes_out=True, inplace=((0, 0),)),
    Kernel("torch.gelu", "cpu", _torch_supports, _torch_bind, writes_out=True, inplace=((0, 0),)),
)
