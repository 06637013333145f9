"""Weights that were quantised before: float values that all are whole multiples of one step a row."""

import torch

_DIVISORS = 12


def levels_of(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(int8 [M, K], float32 scale [M]) with weight = int8 * scale up to float32 rounding; None for any other weight.

    The step of a row is the least distance of two of its values, or a part of it: few values lie further apart than
    levels do. It is then fitted to all values, and has to explain each to a thousandth.
    """
    wide = weight.detach().double()
    ordered = torch.cat([wide, torch.zeros_like(wide[:, :1])], 1).sort(1).values
    apart = ordered.diff(dim=1)
    largest = wide.abs().amax(1, keepdim=True)
    apart = torch.where(apart > 1e-5 * largest, apart, torch.full_like(apart, float("inf")))
    least = apart.amin(1, keepdim=True)
    step = torch.where(torch.isfinite(least), least, torch.ones_like(least))
    levels, scale = torch.zeros_like(wide), torch.ones_like(step)
    left = torch.arange(len(wide))
    for divisor in range(1, _DIVISORS + 1):
        rows = wide[left]
        tried = (rows * divisor / step[left]).round()
        squares = (tried * tried).sum(1, keepdim=True)
        fitted = torch.where(squares > 0, (rows * tried).sum(1, keepdim=True) / squares.clamp_min(1), step[left])
        off = (rows - tried * fitted).abs().amax(1, keepdim=True)
        fits = (off <= 1e-3 * fitted) & (tried.amin(1, keepdim=True) >= -128) & (tried.amax(1, keepdim=True) <= 127)
        take = fits[:, 0]
        levels[left[take]], scale[left[take]] = tried[take], fitted[take]
        left = left[~take]
        if not len(left):
            return levels.to(torch.int8), scale[:, 0].float()
    return None
