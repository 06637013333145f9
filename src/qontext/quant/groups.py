"""Weights in four bits, in groups along K."""

import torch

from .weights import Moving, finite_or_refused

LEVELS = 15
SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8)  # parts of a group's range that are tried: cutting its ends makes finer steps
_LEAST = 1e-30


def int4_groups(
    weight: torch.Tensor, group: int, name: str = "weight", moving: Moving | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(uint8 [M, K / 2], float32 scale [M, K / group], uint8 zero [M, K / group]) of a float weight [M, K].

    value = (bits - zero) * scale, two values a byte, the first in the low half. The range of a group, with 0 in it, or
    the part of it that makes the least squared error, becomes 0..15. K is a multiple of the group, which is even.
    Raises ArgumentError for a weight that holds a NaN or an infinity.
    """
    whole = finite_or_refused(weight, name)
    wide = whole.unflatten(-1, (-1, group))
    low, high = wide.amin(-1).clamp_max(0), wide.amax(-1).clamp_min(0)
    best = torch.full_like(low, float("inf"))
    scale, zero, bits = torch.ones_like(low), torch.zeros_like(low), torch.zeros_like(wide)
    for part in SHRUNK:
        span = (high - low) * part
        step = torch.where(span > _LEAST, span / LEVELS, torch.ones_like(span))
        middle = (-low * part / step).round().clamp(0, LEVELS)
        held = _on_levels(wide, step[..., None], middle[..., None])
        error = (((held - middle[..., None]) * step[..., None] - wide) ** 2).sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        scale, zero = torch.where(better, step, scale), torch.where(better, middle, zero)
        bits = torch.where(better[..., None], held, bits)
    if moving is not None:
        steps, zeros = (t.T.repeat_interleave(group, 0) for t in (scale, zero))  # [K, M]: of each column
        moved = moving(whole, lambda x, at: (_on_levels(x, steps[at], zeros[at]) - zeros[at]) * steps[at])
        bits = _on_levels(moved, steps.T, zeros.T).unflatten(-1, (-1, group))
    packed = bits.to(torch.uint8).flatten(-2)
    return packed[:, 0::2] | packed[:, 1::2] << 4, scale, zero.to(torch.uint8)


def _on_levels(x: torch.Tensor, step: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """The levels nearest to x, as floats."""
    return ((x / step).round() + zero).clamp(0, LEVELS)
