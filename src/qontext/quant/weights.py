"""Weights in few bits."""

from collections.abc import Callable

import torch

from ..dtypes import by_name
from ..errors import ArgumentError
from ..ops.eight_bits import MOST as MOST_FP8
from .rounding import Nearest

# Moves a weight [M, K] to values of a grid that the layer loses less by than by the nearest ones; see `Compensation`.
Moving = Callable[[torch.Tensor, Nearest], torch.Tensor]

FP8 = "float8_e4m3"
_TRIED = 16  # scales of a row
MOST = 127  # of int8: -128 is left out, so that a weight and its negative are equally exact


def int8_rows(
    weight: torch.Tensor, name: str = "weight", moving: Moving | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(int8 [M, K], float32 scale [M]) of a float weight: each row by its largest magnitude.

    A row of zeros gets the scale 1. Raises ArgumentError for a weight that holds a NaN or an infinity.
    """
    wide = finite_or_refused(weight, name)
    scale = _scales_of_rows(wide, MOST)
    if moving is not None:
        wide = moving(wide, lambda columns, _: (columns / scale).round_().clamp_(-MOST, MOST).mul_(scale))
    return (wide / scale[:, None]).round().clamp(-MOST, MOST).to(torch.int8), scale


def fp8_rows(
    weight: torch.Tensor,
    name: str = "weight",
    energy: torch.Tensor | None = None,
    moving: Moving | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(float8_e4m3 [M, K], float32 scale [M]) of a float weight: the scale of each row that loses least.

    Floats round alike at every power of two, so scales between the one of the largest magnitude and twice as much are
    tried; the squares of what is lost are weighted with `energy` [K], the mean squares of the columns of x.

    A row of zeros gets the scale 1. Raises ArgumentError for a weight that holds a NaN or an infinity.
    """
    wide = finite_or_refused(weight, name)
    least = _scales_of_rows(wide, MOST_FP8)
    weights = wide.new_ones(wide.shape[1]) if energy is None else energy.float().to(wide.device)
    lost, kept = torch.full_like(least, float("inf")), least
    held = torch.empty_like(wide, dtype=by_name(FP8).torch)
    for step in range(_TRIED):
        scale = least * (1 + step / _TRIED)
        tried = _to_fp8(wide / scale[:, None])
        missed = (tried.float() * scale[:, None] - wide).square() @ weights
        better = missed < lost
        held[better], kept, lost = tried[better], torch.where(better, scale, kept), torch.where(better, missed, lost)
    if moving is not None:
        moved = moving(wide, lambda columns, _: _to_fp8(columns / kept).float().mul_(kept))
        held = _to_fp8(moved / kept[:, None])
    return held, kept


def _to_fp8(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(-MOST_FP8, MOST_FP8).to(by_name(FP8).torch)


def _scales_of_rows(wide: torch.Tensor, most: float) -> torch.Tensor:
    """float32 [M]: scales by which the largest magnitude of each row becomes `most`."""
    largest = wide.abs().amax(1)
    # Under the smallest normal quotient a scale would lose its digits: such rows count as zeros.
    return torch.where(largest > 1e-30, largest / most, torch.ones_like(largest))


def finite_or_refused(weight: torch.Tensor, name: str) -> torch.Tensor:
    """The weight in float32. Raises ArgumentError for one that holds a NaN or an infinity."""
    wide = weight.detach().float()
    if wide.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(wide))).all()):
        bad = int((~torch.isfinite(wide)).sum())
        raise ArgumentError(
            f"weight {name!r} holds {bad} values that are NaN or infinite; such a weight has no scale. "
            "Repair the model, or keep the layer in its float type: build(keep=[...])"
        )
    return wide
