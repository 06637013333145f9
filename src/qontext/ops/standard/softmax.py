"""Softmax, LogSoftmax and Hardmax: along one axis, and before opset 13 over all axes from one axis on."""

from collections.abc import Callable

import torch

from .attributes import integer
from .data_types import compute_dtype
from .declare import Attributes, Context, Inputs, StandardOp
from .operands import axis_of, needed


def along_axis(name: str, since: int, function: Callable[[torch.Tensor, int], torch.Tensor]) -> StandardOp:
    """A normalised exponential. From opset 13 on along `axis` (default -1); before, the axes from `axis`
    (default 1) on count as one axis."""

    def run(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
        x = needed(name, inputs, 0)
        if context.opset >= 13:
            return function(x, axis_of(name, integer(name, attributes, "axis", -1), x.ndim))
        start = integer(name, attributes, "axis", 1)
        # The last position after all axes is legal here: each element is then a row of its own.
        start = start if start == x.ndim else axis_of(name, start, x.ndim)
        rows = x.reshape(*x.shape[:start], -1) if start < x.ndim else x.unsqueeze(-1)
        return function(rows, -1).reshape(x.shape)

    return StandardOp(name, since, run)


def softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    """exp(x) over its sum along `axis`, summed in float32 for half types."""
    return torch.softmax(x, axis, dtype=compute_dtype(x.dtype)).to(x.dtype)


def log_softmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    """log(softmax(x)), computed without forming the softmax."""
    return torch.log_softmax(x, axis, dtype=compute_dtype(x.dtype)).to(x.dtype)


def hardmax(x: torch.Tensor, axis: int) -> torch.Tensor:
    """1 at the first largest element along `axis`, 0 elsewhere."""
    first = torch.argmax(x, axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, first, 1)
