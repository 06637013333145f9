"""GroupLinear on the GPU: a Triton kernel for any number of rows, made for few."""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import blocks, may_overlap, triton_is_here
from ..native_kernel import even_or_none

_LEAST = 32  # values along K that two products of the matrix units take at least
_DEEPEST = 128


def _group(call: Call) -> int | None:
    """The values along K that share a scale; None when the sizes are open."""
    weight, scale = call.inputs[1:3]
    assert weight is not None and scale is not None
    shapes = (weight.shape, scale.shape)
    if any(s is None or not all(isinstance(d, int) and d > 0 for d in s) for s in shapes):
        return None
    assert weight.constant is None or weight.shape is not None
    halves, groups = (s[1] for s in shapes if s is not None)
    assert isinstance(halves, int) and isinstance(groups, int)
    return 2 * halves // groups


def _supports(call: Call) -> str | None:
    group = _group(call)
    if group is None:
        return "the sizes of the weight are unknown or 0"
    if group % _LEAST:
        return f"groups are of {group}; the kernel takes multiples of {_LEAST}"
    return triton_is_here()


def _bind(call: Call) -> Bound:
    from .gpu_kernel import group_linear

    group, overlap, kind = _group(call), may_overlap(call), call.attributes["activation"]
    weight, x = call.inputs[1], call.inputs[0]
    assert group is not None and weight is not None and weight.shape is not None and x is not None
    n, halves = weight.shape
    assert isinstance(n, int) and isinstance(halves, int)
    depth = max(d for d in (_LEAST, 2 * _LEAST, _DEEPEST) if group % d == 0)
    precision = "tf32x3" if x.dtype == "float32" else None

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        operands = [even_or_none(t) for t in inputs[:6]]
        x = operands[0]
        assert x is not None
        y: torch.Tensor = x.new_empty((*x.shape[:-1], n)) if out is None else out[0]
        rows = x.numel() // (2 * halves)
        if rows:
            tall, wide = (16, 32) if rows <= 16 else (64, 64)
            grid = (blocks(rows, tall) * blocks(n, wide),)
            group_linear[grid](
                *operands, y, rows, n, 2 * halves, group, tall, wide, depth, kind, precision, overlap,
                num_warps=4, num_stages=4 if rows <= 16 else 3, launch_pdl=overlap,
            )  # fmt: skip
        return y

    return run


KERNELS = (Kernel("triton.group_linear", "cuda", _supports, _bind, writes_out=True),)
