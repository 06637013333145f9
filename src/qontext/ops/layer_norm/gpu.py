"""LayerNorm on the GPU: one Triton kernel, each number read once and written once (`gpu_norm_kernel.py`)."""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_norm import bind_norm, norm_supports
from ..kernel_checks import last_axis
from ..native_kernel import even, even_or_none, place


def _bind(call: Call) -> Bound:
    norm = bind_norm(call, last_axis(call.inputs[0]), call.attributes["epsilon"])

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x = even(inputs[0])
        y = place(out, 0, x)
        norm(x, None, None, even_or_none(inputs[1]), even_or_none(inputs[2]), y, None)
        return y

    return run


KERNELS = (Kernel("triton.layer_norm", "cuda", norm_supports, _bind, writes_out=True, inplace=((0, 0),)),)
