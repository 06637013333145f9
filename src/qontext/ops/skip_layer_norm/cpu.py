"""SkipLayerNorm on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ...native.bound import bind_norm
from ..call import Bound, Call, Kernel
from ..eight_bits import NONE
from ..kernel_checks import dtypes_are, last_axis, last_axis_known
from ..native_kernel import dtype_of, even, even_or_none, native_takes_rows, place


def _no_eight_bits(call: Call) -> str | None:
    kind = call.attributes["eight_bits"]
    return None if kind == NONE else f"the result is wanted in {kind} too; the kernel gives floats"


def _native_supports(call: Call) -> str | None:
    return _no_eight_bits(call) or native_takes_rows(call)


def _native_bind(call: Call) -> Bound:
    norm = bind_norm(last_axis(call.inputs[0]), dtype_of(call), eps=call.attributes["epsilon"])
    wants_sum = call.wants(1)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, skip, gamma, beta, bias = inputs[:5]
        x = even(x)
        y, total = place(out, 0, x), place(out, 1, x) if wants_sum else None
        norm(x, even(skip), even_or_none(bias), even(gamma), even_or_none(beta), y, total)
        return y, total

    return run


def _torch_supports(call: Call) -> str | None:
    x = call.inputs[0]
    assert x is not None
    return _no_eight_bits(call) or dtypes_are(call, ("float32", "float16", "bfloat16")) or last_axis_known(x, "x")


def _torch_bind(call: Call) -> Bound:
    width, epsilon = (last_axis(call.inputs[0]),), call.attributes["epsilon"]
    has_x_bias = call.inputs[4] is not None

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.add(inputs[0], inputs[1])
        if has_x_bias:
            total.add_(inputs[4])
        return F.layer_norm(total, width, inputs[2], inputs[3], epsilon), total

    return run


KERNELS = (
    Kernel(
        "native.skip_layer_norm",
        "cpu",
        _native_supports,
        _native_bind,
        writes_out=True,
        inplace=((0, 0), (0, 1)),
        replays=lambda call: True,
    ),
    Kernel("torch.skip_layer_norm", "cpu", _torch_supports, _torch_bind),
)
