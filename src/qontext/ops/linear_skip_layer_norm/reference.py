"""LinearSkipLayerNorm in plain torch."""

import torch

from ..linear.reference import reference as linear
from ..skip_layer_norm.reference import reference as skip_layer_norm


def reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    skip: torch.Tensor,
    norm_weight: torch.Tensor,
    norm_bias: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[torch.Tensor, torch.Tensor]:
    """sum = x W^T + bias + skip; y = LayerNorm(sum). Returns (y, sum)."""
    y, total = skip_layer_norm(linear(x, weight, bias), skip, norm_weight, norm_bias, epsilon=epsilon)[:2]
    assert y is not None and total is not None
    return y, total
