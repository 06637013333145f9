"""SkipLayerNorm in plain torch."""

import torch

from ..eight_bits import NONE, held
from ..layer_norm.reference import reference as layer_norm


def reference(
    x: torch.Tensor,
    skip: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    x_bias: torch.Tensor | None = None,
    y_scale: torch.Tensor | None = None,
    y_zero: torch.Tensor | None = None,
    y_factor: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    eight_bits: str = NONE,
) -> tuple[torch.Tensor | None, ...]:
    """sum = x + skip + x_bias; y = LayerNorm(sum). Returns (y, sum, y in eight bits, scales and zeros of its rows)."""
    total = x + skip
    if x_bias is not None:
        total = total + x_bias
    y = layer_norm(total, weight, bias, epsilon=epsilon)
    if eight_bits == NONE:
        return y, total, None, None, None
    return y, total, *held(y, eight_bits, y_scale, y_zero, y_factor)
