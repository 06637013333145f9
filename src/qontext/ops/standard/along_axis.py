"""Operators that walk along one axis: ArgMax, ArgMin, TopK, CumSum, CumProd, ReverseSequence."""

from collections.abc import Callable

import torch

from ...errors import ShapeError
from .attributes import flag, integer
from .declare import Attributes, Context, Inputs, StandardOp
from .operands import axis_of, host_int, needed, together


def arg_extreme(name: str, since: int, function: Callable[..., torch.Tensor]) -> StandardOp:
    """The position of an extreme along `axis`, int64; the first of equal ones unless `select_last_index`."""

    def run(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
        x = needed(name, inputs, 0)
        axis = axis_of(name, integer(name, attributes, "axis", 0), x.ndim)
        keep = flag(name, attributes, "keepdims", True)
        if flag(name, attributes, "select_last_index"):
            return x.shape[axis] - 1 - function(torch.flip(x, [axis]), axis, keep)
        return function(x, axis, keep)

    return StandardOp(name, since, run)


def top_k(inputs: Inputs, attributes: Attributes, context: Context) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest (or smallest) along `axis` and their positions; of equal ones the first comes first."""
    x = needed("TopK", inputs, 0)
    k = host_int("TopK", "k", needed("TopK", inputs, 1))
    axis = axis_of("TopK", integer("TopK", attributes, "axis", -1), x.ndim)
    largest = flag("TopK", attributes, "largest", True)
    flag("TopK", attributes, "sorted", True)
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(f"TopK: k is {k}; allowed is 0 to {x.shape[axis]}, the size of axis {axis}")
    # torch.topk leaves the order of equal elements open, a stable sort does not.
    values, positions = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k), positions.narrow(axis, 0, k)


def cumulative(name: str, since: int, function: Callable[..., torch.Tensor], start: int) -> StandardOp:
    """A running sum or product in the type of the input, exclusive or from the end if so asked; `start` is the
    value of no elements."""

    def run(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
        x = needed(name, inputs, 0)
        axis = axis_of(name, host_int(name, "axis", needed(name, inputs, 1)), x.ndim)
        reverse = flag(name, attributes, "reverse")
        if reverse:
            x = torch.flip(x, [axis])
        y = function(x, axis, dtype=x.dtype)
        if flag(name, attributes, "exclusive"):
            first = torch.full_like(y.narrow(axis, 0, min(1, y.shape[axis])), start)
            y = torch.cat([first, y.narrow(axis, 0, max(0, y.shape[axis] - 1))], axis)
        return torch.flip(y, [axis]) if reverse else y

    return StandardOp(name, since, run, shape_operands=(1,))


def reverse_sequence(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Each sequence of the batch reversed in its first `sequence_lens` steps."""
    op = "ReverseSequence"
    x, lengths = together(needed(op, inputs, 0), needed(op, inputs, 1))
    batch = axis_of(op, integer(op, attributes, "batch_axis", 1), x.ndim)
    time = axis_of(op, integer(op, attributes, "time_axis", 0), x.ndim)
    if {batch, time} != {0, 1}:
        raise ShapeError(f"{op}: batch_axis is {batch} and time_axis is {time}; allowed are 0 and 1, one each")
    steps = torch.arange(x.shape[time], device=x.device).reshape([-1 if a == time else 1 for a in (0, 1)])
    ends = lengths.reshape([-1 if a == batch else 1 for a in (0, 1)])
    source = torch.where(steps < ends, ends - 1 - steps, steps)
    source = source.reshape(*source.shape, *[1] * (x.ndim - 2)).expand(x.shape)
    return torch.gather(x, time, source)
