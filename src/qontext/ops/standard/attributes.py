"""Reading attributes: each reader gives the value in its Python type, or one error naming operator and attribute."""

from collections.abc import Collection

import torch

from ...errors import UnsupportedOperatorError
from .declare import Attributes


def refusal(op: str, name: str, found: object, allowed: str) -> UnsupportedOperatorError:
    """The error for an attribute that is missing (`found` is None) or has a value that qontext cannot run."""
    state = "is missing" if found is None else f"is {found!r}"
    return UnsupportedOperatorError(
        f"{op}: attribute '{name}' {state}; allowed is {allowed}; correct the model or export it again"
    )


def integer(op: str, attributes: Attributes, name: str, default: int | None = None) -> int:
    """An integer attribute; without `default` it is required."""
    value = attributes.get(name, default)
    if not isinstance(value, int):
        raise refusal(op, name, value, "an integer")
    return value


def choice(op: str, attributes: Attributes, name: str, allowed: Collection[int], default: int | None = None) -> int:
    """An integer attribute that must be one of `allowed`."""
    value = integer(op, attributes, name, default)
    if value not in allowed:
        raise refusal(op, name, value, f"one of {', '.join(map(str, allowed))}")
    return value


def flag(op: str, attributes: Attributes, name: str, default: bool = False) -> bool:
    """An integer attribute that means no (0) or yes (1)."""
    return choice(op, attributes, name, (0, 1), int(default)) == 1


def number(op: str, attributes: Attributes, name: str, default: float | None = None) -> float:
    """A float attribute; without `default` it is required."""
    value = attributes.get(name, default)
    if not isinstance(value, (int, float)):
        raise refusal(op, name, value, "a number")
    return float(value)


def word(op: str, attributes: Attributes, name: str, allowed: Collection[str], default: str) -> str:
    """A string attribute that must be one of `allowed`."""
    value = attributes.get(name, default)
    if value not in allowed:
        raise refusal(op, name, value, f"one of {', '.join(allowed)}")
    return str(value)


def integers(op: str, attributes: Attributes, name: str) -> list[int] | None:
    """A list of integers, None when absent."""
    value = attributes.get(name)
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, int) for v in value):
        raise refusal(op, name, value, "a list of integers")
    return list(value)


def tensor(op: str, attributes: Attributes, name: str) -> torch.Tensor | None:
    """A tensor attribute, None when absent."""
    value = attributes.get(name)
    if value is not None and not isinstance(value, torch.Tensor):
        raise refusal(op, name, value, "a tensor")
    return value
