"""RotaryEmbedding on the GPU: one Triton kernel for every layout and pairing (`gpu_kernel.py`).

Positions are not read back: one outside the table gives NaN. Limit: heads of at most 2 * `_MOST_PAIRS` numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import blocks, may_overlap, power_of_2, takes_floats
from ..kernel_checks import last_axis, last_axis_known
from ..native_kernel import even, even_or_none, place
from .reference import FLAT_LAYOUTS

_MOST_PAIRS = 2048
_TILE = 2048


def _supports(call: Call) -> str | None:
    x, cos = call.inputs[:2]
    assert x is not None
    assert cos is not None
    reason = takes_floats(call) or last_axis_known(cos, "cos") or last_axis_known(x, "x")
    if reason is None and not 0 < last_axis(cos) <= _MOST_PAIRS:
        return f"cos has {last_axis(cos)} pairs, the kernel takes 1 to {_MOST_PAIRS}"
    return reason


def _sizes(layout: str, shape: Sequence[int], heads: int) -> tuple[int, int, int, int, int, int]:
    """Batch, length, heads and the strides of sequence, token and head of contiguous x."""
    if layout == "B N S D":
        b, n, s, d = shape
        return b, s, n, n * s * d, d, s * d
    if layout == "B S N D":
        b, s, n, d = shape
        return b, s, n, s * n * d, n * d, d
    size = shape[-1] // heads
    if layout == "T (N D)":
        return 1, shape[0], heads, 0, shape[1], size
    if layout == "B S (N D)":
        return shape[0], shape[1], heads, shape[1] * shape[2], shape[2], size
    return shape[1], shape[0], heads, shape[2], shape[1] * shape[2], size


def _bind(call: Call) -> Bound:
    from .gpu_kernel import rotate

    layout, overlap = call.attributes["layout"], may_overlap(call)
    pairs, half, given_heads = last_axis(call.inputs[1]), call.attributes["pairing"] == "half", 1
    size = last_axis(call.inputs[0])
    if layout in FLAT_LAYOUTS:
        given_heads = call.attributes["num_heads"]
        size //= given_heads
    columns, rest = power_of_2(pairs), power_of_2(size - 2 * pairs)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, cos, sin = even(inputs[0]), even(inputs[1]), even(inputs[2])
        y = place(out, 0, x)
        if x.numel() == 0:
            return y
        batch, length, heads, *strides = _sizes(layout, x.shape, given_heads)
        each = min(max(_TILE // columns, 1), power_of_2(heads))
        rotate[(batch * length, blocks(heads, each))](
            x, cos, sin, even_or_none(inputs[3]), y, length, heads, cos.numel() // pairs, *strides,
            size, pairs, half, each, columns, rest, overlap,
            num_warps=min(max(each * columns // 256, 1), 8), launch_pdl=overlap,
        )  # fmt: skip
        return y

    return run


KERNELS = (Kernel("triton.rotary_embedding", "cuda", _supports, _bind, writes_out=True),)
