"""SkipLayerNorm in plain torch."""

import torch

from ..layer_norm.reference import reference as layer_norm


def reference(
    x: torch.Tensor,
    skip: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    x_bias: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[torch.Tensor, torch.Tensor]:
    """sum = x + skip + x_bias; y = LayerNorm(sum). Returns (y, sum)."""
    total = x + skip
    if x_bias is not None:
        total = total + x_bias
    return layer_norm(total, weight, bias, epsilon=epsilon), total
