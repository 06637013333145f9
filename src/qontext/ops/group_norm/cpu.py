"""GroupNorm on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ..call import Bound, Call, Kernel
from ..kernel_checks import dtypes_are


def _torch_supports(call: Call) -> str | None:
    return dtypes_are(call, ("float32", "float16", "bfloat16"))


def _torch_bind(call: Call) -> Bound:
    groups, epsilon = call.attributes["num_groups"], call.attributes["epsilon"]

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        return F.group_norm(inputs[0], groups, inputs[1], inputs[2], epsilon)

    return run


KERNELS = (Kernel("torch.group_norm", "cpu", _torch_supports, _torch_bind),)
