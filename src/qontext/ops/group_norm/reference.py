"""GroupNorm in plain torch."""

import torch


def reference(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *, num_groups: int, epsilon: float = 1e-5
) -> torch.Tensor:
    """Each of `num_groups` groups of channels is normalised over its channels and all spatial axes."""
    grouped = x.reshape(x.shape[0], num_groups, -1)
    centred = grouped - grouped.mean(-1, keepdim=True)
    y = centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + epsilon)
    per_channel = (-1, *[1] * (x.dim() - 2))
    return y.reshape(x.shape) * weight.reshape(per_channel) + bias.reshape(per_channel)
