"""Weights in few bits."""

import torch

from ..errors import ArgumentError

MOST = 127  # of int8: -128 is left out, so that a weight and its negative are equally exact


def int8_rows(weight: torch.Tensor, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor]:
    """(int8 [M, K], float32 scale [M]) of a float weight: each row by its largest magnitude.

    A row of zeros gets the scale 1. Raises ArgumentError for a weight that holds a NaN or an infinity.
    """
    wide = finite_or_refused(weight, name)
    largest = wide.abs().amax(1)
    # Under the smallest normal quotient a scale would lose its digits: such rows count as zeros.
    scale = torch.where(largest > 1e-30, largest / MOST, torch.ones_like(largest))
    return (wide / scale[:, None]).round().clamp(-MOST, MOST).to(torch.int8), scale


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
