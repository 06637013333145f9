"""SmoothQuant: columns of what a layer reads are divided by factors, the columns of its weight multiplied by them.

Outliers sit in a few columns and stretch the range of whole rows; weights have none. The factor of a column is
largest(x)^alpha / largest(w)^(1 - alpha), with the alpha that costs the layer least (https://arxiv.org/abs/2211.10438).
"""

from collections.abc import Sequence

import torch

from ..dtypes import relative_rms
from ..ops.eight_bits import bytes_of
from .weights import int8_rows

ALPHAS = (0.0, 0.25, 0.5, 0.65, 0.8)  # 0 stands for no smoothing at all


def factors(largest_x: torch.Tensor, weight: torch.Tensor, alpha: float) -> torch.Tensor:
    """float32 [K] from the largest magnitudes [K] of x and a weight [M, K]; 1 for columns of zeros."""
    largest_w = weight.abs().amax(0).float()
    found = largest_x.float().pow(alpha) / largest_w.pow(1 - alpha)
    usable = torch.isfinite(found) & (found > 1e-6) & (largest_x > 0) & (largest_w > 0)
    if not bool(usable.any()):
        return torch.ones_like(found)
    middle = found[usable].log().mean().exp()  # so that ranges stay where they were
    return torch.where(usable, (found / middle).clamp(1e-3, 1e3), torch.ones_like(found))


def layer_error(
    x: torch.Tensor,
    weight: torch.Tensor,
    smoothing: torch.Tensor | None = None,
    by_row: bool = True,
    want: torch.Tensor | None = None,
) -> float:
    """Relative RMS error of x W^T in bytes: x [R, K], weight [M, K]; scales by row of x, or one for all rows.

    `want` is x W^T in floats, for who has it already.
    """
    scaled, w = (x, weight) if smoothing is None else (x / smoothing, weight * smoothing)
    values, scale = int8_rows(w)
    shown = scaled if by_row else scaled.reshape(1, -1)
    held, step, zero = bytes_of(shown)
    back = ((held - zero) * step).reshape(scaled.shape)
    return relative_rms(back @ values.float().T * scale, x @ weight.float().T if want is None else want)


def search(
    x: torch.Tensor,
    largest_x: torch.Tensor,
    weight: torch.Tensor,
    by_row: bool = True,
    alphas: Sequence[float] = ALPHAS,
) -> torch.Tensor | None:
    """The factors that make the least error on rows of samples; None when none are better than no factors.

    Args:
        x: float32 [R, K], a few rows of what the layer reads.
        largest_x: [K], over all samples.
        weight: [M, K].
        by_row: x will get a scale for every row, not one for all.
    """
    want = x @ weight.float().T
    best, least = None, layer_error(x, weight, None, by_row, want)
    for alpha in alphas:
        if alpha == 0.0:
            continue
        tried = factors(largest_x, weight, alpha)
        error = layer_error(x, weight, tried, by_row, want)
        if error < least * 0.98:  # what is no clear gain is not worth a pass over x
            best, least = tried, error
    return best
