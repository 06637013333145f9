"""LinearSkipLayerNorm for few rows on the GPU: the norm adds up the parts that the product was left in."""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_norm import bind_norm, norm_supports
from ..kernel_checks import last_axis
from ..linear import gpu_parts
from ..linear.gpu_early import Early
from ..linear.gpu_tiles import Tile
from ..native_kernel import even, even_or_none, place
from .pairs import linear_call, norm_call


def _supports(shape: Early | Tile, call: Call) -> str | None:
    return gpu_parts.supports(shape, linear_call(call)) or norm_supports(norm_call(call, True))


def _bind(shape: Early | Tile, call: Call) -> Bound:
    multiply = gpu_parts.bind(shape, linear_call(call))
    after = norm_call(call, True)
    norm = bind_norm(after, last_axis(after.inputs[0]), call.attributes["epsilon"])
    wants_sum = call.wants(1)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, weight, skip, norm_weight, norm_bias, bias = inputs
        skip = even(skip)
        y, total = place(out, 0, skip), place(out, 1, skip) if wants_sum else None
        parts = multiply(even(x), even(weight))
        norm(parts, skip, even_or_none(bias), even(norm_weight), even_or_none(norm_bias), y, total, len(parts))
        return y, total

    return run


def _kernel(shape: Early | Tile) -> Kernel:
    return Kernel(
        gpu_parts.name(shape, "norm"),
        "cuda",
        lambda call: _supports(shape, call),
        lambda call: _bind(shape, call),
        writes_out=True,
        made_of=gpu_parts.MADE_OF,
    )


EARLY = tuple(_kernel(shape) for shape in gpu_parts.EARLY)
TILES = tuple(_kernel(shape) for shape in gpu_parts.TILES)
