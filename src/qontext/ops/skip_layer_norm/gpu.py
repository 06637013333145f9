"""SkipLayerNorm on the GPU: addition, bias and norm in one Triton kernel (`gpu_norm_kernel.py`)."""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_norm import bind_norm, norm_supports
from ..kernel_checks import last_axis
from ..native_kernel import even, even_or_none, place


def _bind(call: Call) -> Bound:
    norm = bind_norm(call, last_axis(call.inputs[0]), call.attributes["epsilon"])
    wants_sum = call.wants(1)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, skip, weight, bias, x_bias = inputs
        x = even(x)
        y, total = place(out, 0, x), place(out, 1, x) if wants_sum else None
        norm(x, even(skip), even_or_none(x_bias), even(weight), even_or_none(bias), y, total)
        return y, total

    return run


KERNELS = (Kernel("triton.skip_layer_norm", "cuda", norm_supports, _bind, writes_out=True, inplace=((0, 0), (0, 1))),)
