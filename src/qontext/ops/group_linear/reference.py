"""GroupLinear in plain torch."""

import torch

from ..linear.reference import ACTIVATIONS


def halves_of(weight: torch.Tensor) -> torch.Tensor:
    """uint8 [M, K] with 0 to 15 of a packed weight [M, K / 2]: two values a byte, the first in the low half."""
    return torch.stack([weight & 15, weight >> 4], -1).flatten(-2)


def weights_of(weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The weight [M, K] that packed values [M, K / 2], scales and zeros [M, groups] stand for."""
    whole = halves_of(weight).to(dtype).unflatten(-1, (scale.shape[-1], -1))
    return ((whole - zero.to(dtype)[..., None]) * scale.to(dtype)[..., None]).flatten(-2)


def reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    weight_zero: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    *,
    activation: str = "none",
) -> torch.Tensor:
    """y = act(x W^T + bias) + residual, with W = (bits - zero) * scale, group by group along K."""
    y = x @ weights_of(weight, weight_scale, weight_zero, x.dtype).transpose(0, 1)
    if bias is not None:
        y = y + bias
    y = ACTIVATIONS[activation](y)
    return y if residual is None else y + residual
