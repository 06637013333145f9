"""LayerNorm in plain torch."""

import torch


def reference(
    x: torch.Tensor,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-5,
) -> torch.Tensor:
    """y = (x - mean) / sqrt(variance + epsilon) * weight + bias over the last axis."""
    centred = x - x.mean(-1, keepdim=True)
    y = centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + epsilon)
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias
