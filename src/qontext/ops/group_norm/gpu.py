"""GroupNorm on the GPU: one Triton kernel, one program a group (`gpu_kernel.py`).

Limit: a group has fewer than 2^31 elements.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import may_overlap, power_of_2, takes_floats
from ..gpu_norm import warps_for
from ..native_kernel import even, place

_LARGEST_PIECE = 8192


def _supports(call: Call) -> str | None:
    x = call.inputs[0]
    assert x is not None
    numbers = [d for d in (x.shape or ())[1:] if isinstance(d, int)]
    group = math.prod(numbers) // call.attributes["num_groups"]
    reason = takes_floats(call)
    return reason or (f"a group has {group} elements, the kernel takes fewer than 2^31" if group >= 1 << 31 else None)


def _bind(call: Call) -> Bound:
    from .gpu_kernel import norm_group

    groups, epsilon = call.attributes["num_groups"], call.attributes["epsilon"]
    overlap = may_overlap(call)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x = even(inputs[0])
        y = place(out, 0, x)
        if x.numel() == 0:
            return y
        spatial, channels = math.prod(x.shape[2:]), x.shape[1] // groups
        size = channels * spatial
        piece = min(power_of_2(size), _LARGEST_PIECE)
        norm_group[(x.shape[0] * groups,)](
            x, even(inputs[1]), even(inputs[2]), y, size, spatial, channels, groups, epsilon,
            piece, size <= piece, overlap, num_warps=warps_for(piece), launch_pdl=overlap,
        )  # fmt: skip
        return y

    return run


KERNELS = (Kernel("triton.group_norm", "cuda", _supports, _bind, writes_out=True, inplace=((0, 0),)),)
