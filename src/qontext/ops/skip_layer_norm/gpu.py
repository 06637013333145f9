"""SkipLayerNorm on the GPU: addition, bias, norm and rounding to eight bits in one Triton kernel."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..eight_bits import NONE
from ..gpu_norm import WIDEST_TILE, bind_norm, norm_supports
from ..kernel_checks import last_axis
from ..native_kernel import even, even_or_none, place


def _floats(call: Call) -> Call:
    """The call without what belongs to eight bits."""
    return replace(call, inputs=call.inputs[:5], outputs=call.outputs[:2])


def _supports(call: Call) -> str | None:
    reason = norm_supports(_floats(call))
    if reason is not None or call.attributes["eight_bits"] == NONE:
        return reason
    for name, operand in zip(("y_scale", "y_zero", "y_factor"), call.inputs[5:8], strict=True):
        if operand is not None and operand.constant is None:
            return f"{name} is no constant"
    if call.inputs[5] is not None and (call.wants(3) or call.wants(4)):
        return "the scale is static, and scales of rows are wanted"
    width = last_axis(call.inputs[0])
    return f"rows of {width} are wider than {WIDEST_TILE}, none goes into eight bits" if width > WIDEST_TILE else None


def _bind(call: Call) -> Bound:
    norm = bind_norm(_floats(call), last_axis(call.inputs[0]), call.attributes["epsilon"])
    wants_sum, held = call.wants(1), call.attributes["eight_bits"] != NONE and call.wants(2)
    scale, zero, factor = (None if o is None or o.constant is None else o.constant.detach() for o in call.inputs[5:8])
    inverse = None if scale is None else float(1 / scale.float())
    static = (factor, inverse, None if inverse is None else float(zero) if zero is not None else 0.0)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> tuple[torch.Tensor | None, ...]:
        x, skip, weight, bias, x_bias = inputs[:5]
        x = even(x)
        y, total = place(out, 0, x), place(out, 1, x) if wants_sum else None
        wide = (x, even(skip), even_or_none(x_bias), even(weight), even_or_none(bias), y, total, 1)
        if not held:
            norm(*wide)
            return y, total
        assert out is not None
        norm(*wide, (*out[2:5], *static))
        return y, total, *out[2:5]

    return run


KERNELS = (Kernel("triton.skip_layer_norm", "cuda", _supports, _bind, writes_out=True, inplace=((0, 0), (0, 1))),)
