"""SkipLayerNorm on the CPU."""

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
    has_x_bias = call.inputs[4] is not None

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.add(inputs[0], inputs[1])
        if has_x_bias:
            total.add_(inputs[4])
        return F.layer_norm(total, width, inputs[2], inputs[3], epsilon), total

    return run


KERNELS = (Kernel("torch.skip_layer_norm", "cpu", _torch_supports, _torch_bind),)
