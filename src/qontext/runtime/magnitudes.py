"""How large the results of steps become on given inputs, and which are too large for a narrower type."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..builder.plan import Step
from .executor import Observe

_ROOM = 0.5  # of the range: another input may be twice as large

Run = Callable[[Mapping[str, Any], Observe], object]


def largest_results(run: Run, batches: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The largest finite or infinite magnitude of the float results of every step over all batches, by step name.

    Args:
        run: runs a batch with a tap.
    """
    most: dict[str, torch.Tensor] = {}

    def tap(step: Step, outputs: tuple[torch.Tensor | None, ...]) -> None:
        for tensor in outputs:
            if tensor is not None and tensor.is_floating_point() and tensor.numel():
                largest = tensor.abs().nan_to_num(0.0, posinf=float("inf")).amax()
                held = most.get(step.name)
                most[step.name] = largest if held is None else torch.maximum(held, largest)

    for batch in batches:
        run(batch, tap)
    return {name: float(value) for name, value in most.items()}


def near_overflow(run: Run, batches: Sequence[Mapping[str, Any]], dtype: torch.dtype) -> dict[str, float]:
    """Steps whose results come within a factor of two of the largest number of a type, with their magnitudes."""
    limit = torch.finfo(dtype).max * _ROOM
    return {name: most for name, most in largest_results(run, batches).items() if most > limit}
