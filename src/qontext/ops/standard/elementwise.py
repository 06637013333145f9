"""Operators that work on each element alone: arithmetic, comparison, logic, bits."""

from collections.abc import Callable
from functools import partial, reduce

import torch

from .attributes import flag, word
from .data_types import UNSIGNED
from .declare import Attributes, Context, Inputs, Run, StandardOp
from .operands import all_needed, meeting_device, needed, optional, together

_Two = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _computed(function: _Two, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """function(a, b), through a wider type for the unsigned integers that torch holds but cannot compute."""
    wide = UNSIGNED.get(a.dtype)
    if wide is None:
        return function(a, b)
    result = function(a.to(wide), b.to(wide))
    return result if result.dtype == torch.bool else result.to(a.dtype)


def unary(name: str, since: int, function: Callable[[torch.Tensor], torch.Tensor]) -> StandardOp:
    """An operator of one tensor without attributes."""

    def run(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
        return function(needed(name, inputs, 0))

    return StandardOp(name, since, run)


def binary(name: str, since: int, function: _Two) -> StandardOp:
    """An operator of two tensors that broadcast against each other, without attributes."""

    def run(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
        a, b = together(needed(name, inputs, 0), needed(name, inputs, 1))
        return _computed(function, a, b)

    return StandardOp(name, since, run)


def variadic(name: str, since: int, function: _Two) -> StandardOp:
    """An operator that folds any number of tensors, which broadcast, from the left."""

    def run(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
        return reduce(partial(_computed, function), together(*all_needed(name, inputs)))

    return StandardOp(name, since, run)


def divide(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a / b; integers are divided towards zero."""
    if a.is_floating_point() or a.is_complex():
        return torch.div(a, b)
    return torch.div(a, b, rounding_mode="trunc")


def power(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a ** b in the type of `a`, whatever the type of the exponent."""
    return torch.pow(a, b).to(a.dtype)


def inverted(x: torch.Tensor) -> torch.Tensor:
    """Every bit of x turned over."""
    return torch.bitwise_xor(x, torch.full((), -1, dtype=torch.int64, device=x.device).to(x.dtype))


def mod(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The remainder with the sign of the divisor, or (fmod = 1) of the dividend."""
    a, b = together(needed("Mod", inputs, 0), needed("Mod", inputs, 1))
    return _computed(torch.fmod if flag("Mod", attributes, "fmod") else torch.remainder, a, b)


def mean(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The mean over the inputs, which broadcast."""
    tensors = together(*all_needed("Mean", inputs))
    return reduce(torch.add, tensors) / len(tensors)


def clip(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """min(max(x, low), high); either bound may be absent."""
    at = meeting_device(inputs)
    x, low, high = needed("Clip", inputs, 0, at), optional(inputs, 1, at), optional(inputs, 2, at)
    if low is not None:
        x = torch.maximum(x, low.reshape(()))
    return x if high is None else torch.minimum(x, high.reshape(()))


def where(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """x where the condition holds, else y; all three broadcast."""
    condition, x, y = together(*(needed("Where", inputs, i) for i in range(3)))
    return torch.where(condition, x, y)


def is_inf(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Is it infinite, of a sign that the attributes let count?"""
    x = needed("IsInf", inputs, 0)
    below = flag("IsInf", attributes, "detect_negative", True)
    above = flag("IsInf", attributes, "detect_positive", True)
    if below and above:
        return torch.isinf(x)
    if below:
        return torch.isneginf(x)
    return torch.isposinf(x) if above else torch.zeros_like(x, dtype=torch.bool)


def bit_shift(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The bits of x moved by y places."""
    x, y = together(needed("BitShift", inputs, 0), needed("BitShift", inputs, 1))
    left = word("BitShift", attributes, "direction", ("LEFT", "RIGHT"), "") == "LEFT"
    return _computed(torch.bitwise_left_shift if left else torch.bitwise_right_shift, x, y)


def identity(name: str) -> Run:
    """A run that gives its first input back."""

    def run(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
        return needed(name, inputs, 0)

    return run
