"""RMSNorm in plain torch."""

import torch


def reference(x: torch.Tensor, weight: torch.Tensor | None = None, *, epsilon: float = 1e-6) -> torch.Tensor:
    """y = x / sqrt(mean(x^2) + epsilon) * weight over the last axis."""
    y = x / torch.sqrt((x * x).mean(-1, keepdim=True) + epsilon)
    return y if weight is None else y * weight
