"""Reductions over axes, which are an attribute or an input depending on the opset."""

from collections.abc import Callable

import torch

from .attributes import flag
from .data_types import compute_dtype
from .declare import Attributes, Context, Inputs, StandardOp
from .operands import axes_operand, axis_of, needed

_Reduce = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def reduction(name: str, since: int, function: _Reduce, axes_input_since: int = 18) -> StandardOp:
    """A reduction; `function(x, axes, keepdims)` gets axes counted from the front, never none of them."""

    def run(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
        x = needed(name, inputs, 0)
        axes = axes_operand(name, inputs, attributes, context, 1, axes_input_since)
        keep = flag(name, attributes, "keepdims", True)
        if not axes:
            if flag(name, attributes, "noop_with_empty_axes"):
                # No axis is reduced; what the reduction does to each element remains (a square, a logarithm).
                return function(x.unsqueeze(-1), [x.ndim], False)
            axes = list(range(x.ndim))
        axes = sorted({axis_of(name, a, x.ndim) for a in axes})
        if not axes:
            return function(x.unsqueeze(-1), [0], False)
        return function(x, axes, keep)

    return StandardOp(name, since, run, shape_operands=(1,))


def _sum(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    wide = compute_dtype(x.dtype)
    return torch.sum(x, axes, keep, dtype=wide).to(x.dtype)


def _count(x: torch.Tensor, axes: list[int]) -> int:
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return count


def total(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """The sum."""
    return _sum(x, axes, keep)


def mean(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """The mean; integers are divided towards zero."""
    if x.is_floating_point():
        return torch.mean(x, axes, keep, dtype=compute_dtype(x.dtype)).to(x.dtype)
    return torch.div(_sum(x, axes, keep), _count(x, axes), rounding_mode="trunc")


def _extreme(x: torch.Tensor, axes: list[int], keep: bool, largest: bool) -> torch.Tensor:
    if _count(x, axes) == 0:
        if x.is_floating_point():
            limit: float = float("-inf") if largest else float("inf")
        elif x.dtype == torch.bool:
            limit = 0 if largest else 1
        else:
            limit = torch.iinfo(x.dtype).min if largest else torch.iinfo(x.dtype).max
        shape = torch.sum(x, axes, keep).shape
        return torch.full(shape, limit, dtype=x.dtype, device=x.device)
    return torch.amax(x, axes, keep) if largest else torch.amin(x, axes, keep)


def maximum(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """The largest element; of none, the smallest value of the type."""
    return _extreme(x, axes, keep, largest=True)


def minimum(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """The smallest element; of none, the largest value of the type."""
    return _extreme(x, axes, keep, largest=False)


def product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """The product."""
    y = x.to(compute_dtype(x.dtype))
    for axis in reversed(axes):
        y = torch.prod(y, axis, keep, dtype=y.dtype)
    return y.to(x.dtype)


def sum_of_magnitudes(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """The sum of absolute values."""
    return _sum(x.abs(), axes, keep)


def sum_of_squares(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """The sum of squares, squared in float32 for half types."""
    wide = x.to(compute_dtype(x.dtype))
    return _sum(wide * wide, axes, keep).to(x.dtype)


def root_of_squares(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """The square root of the sum of squares; integers go through float64."""
    wide = x.to(compute_dtype(x.dtype)) if x.is_floating_point() else x.double()
    return torch.sqrt(_sum(wide * wide, axes, keep)).to(x.dtype)


def log_of_sum(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """The logarithm of the sum."""
    wide = x.to(compute_dtype(x.dtype)) if x.is_floating_point() else x.double()
    return torch.log(_sum(wide, axes, keep)).to(x.dtype)


def log_of_sum_of_exponentials(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """log(sum(exp(x))), without overflow."""
    wide = x.to(compute_dtype(x.dtype)) if x.is_floating_point() else x.double()
    return torch.logsumexp(wide, axes, keep).to(x.dtype)
