"""Weights in few bits."""

import torch

from ..dtypes import by_name
from ..errors import ArgumentError
from ..ops.eight_bits import MOST as MOST_FP8

FP8 = "float8_e4m3"
MOST = 127  # of int8: -128 is left out, so that a weight and its negative are equally exact


def int8_rows(weight: torch.Tensor, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor]:
    """(int8 [M, K], float32 scale [M]) of a float weight: each row by its largest magnitude.

    A row of zeros gets the scale 1. Raises ArgumentError for a weight that holds a NaN or an infinity.
    """
    wide, scale = _scaled_rows(weight, name, MOST)
    return (wide / scale[:, None]).round().clamp(-MOST, MOST).to(torch.int8), scale


def fp8_rows(weight: torch.Tensor, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor]:
    """(float8_e4m3 [M, K], float32 scale [M]) of a float weight: each row by its largest magnitude.

    A row of zeros gets the scale 1. Raises ArgumentError for a weight that holds a NaN or an infinity.
    """
    wide, scale = _scaled_rows(weight, name, MOST_FP8)
    return (wide / scale[:, None]).clamp(-MOST_FP8, MOST_FP8).to(by_name(FP8).torch), scale


def _scaled_rows(weight: torch.Tensor, name: str, most: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight in float32, and the scale of each row whose largest magnitude becomes `most`."""
    wide = weight.detach().float()
    largest = wide.abs().amax(1)
    if not bool(torch.isfinite(largest).all()):
        bad = int((~torch.isfinite(wide)).sum())
        raise ArgumentError(
            f"weight {name!r} holds {bad} values that are NaN or infinite; such a weight has no scale. "
            "Repair the model, or keep the layer in its float type: build(keep=[...])"
        )
    # Under the smallest normal quotient a scale would lose its digits: such rows count as zeros.
    return wide, torch.where(largest > 1e-30, largest / most, torch.ones_like(largest))
