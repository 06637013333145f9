"""LayerNorm on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ..call import Bound, Call, Kernel
from ..kernel_checks import dtypes_are, last_axis_known


def _torch_supports(call: Call) -> str | None:
    x = call.inputs[0]
    assert x is not None
    return dtypes_are(call, ("float32", "float16", "bfloat16")) or last_axis_known(x, "x")


def _torch_bind(call: Call) -> Bound:
    x = call.inputs[0]
    assert x is not None
    assert x.shape is not None
    width, epsilon = x.shape[-1:], call.attributes["epsilon"]

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        return F.layer_norm(inputs[0], width, inputs[1], inputs[2], epsilon)

    return run


KERNELS = (Kernel("torch.layer_norm", "cpu", _torch_supports, _torch_bind),)
