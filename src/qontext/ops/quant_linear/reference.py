"""QuantLinear in plain torch."""

import torch

from ..linear.reference import ACTIVATIONS

LEAST_RANGE = 1e-30  # rows that span less are all zeros


def bytes_of(
    x: torch.Tensor,
    x_scale: torch.Tensor | None = None,
    x_zero: torch.Tensor | None = None,
    x_factor: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(bytes, scale, zero) with x * x_factor about (bytes - zero) * scale: bytes as float32 of the shape of x.

    Without a scale every row gets its own: its range, with 0 in it, becomes 0..255. All of this is float32 arithmetic,
    whatever the dtype of x, so that every kernel can make the same bytes. A row with a NaN or infinity gets the scale
    NaN.
    """
    x = x.float() if x_factor is None else x.float() * x_factor.float()
    finite = torch.where(torch.isfinite(x), x, torch.zeros_like(x))
    nothing = (x * 0).sum(-1, keepdim=True)  # 0, or NaN where x holds a NaN or an infinity
    if x_scale is None:
        low = finite.amin(-1, keepdim=True).clamp_max(0)
        span = finite.amax(-1, keepdim=True).clamp_min(0) - low
        empty = span < LEAST_RANGE
        most = torch.full_like(span, 255)
        inverse = torch.where(empty, 0, most / torch.where(empty, 1, span))
        scale = torch.where(empty, 1, span / most)
        zero = (-low * inverse).round()
    else:
        scale = x_scale.float().expand(nothing.shape)
        inverse = torch.ones_like(scale) / scale
        zero = torch.zeros_like(scale) if x_zero is None else x_zero.float().expand(scale.shape)
    return ((finite * inverse).round() + zero).clamp(0, 255), scale + nothing, zero


def reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    x_scale: torch.Tensor | None = None,
    x_zero: torch.Tensor | None = None,
    x_factor: torch.Tensor | None = None,
    *,
    activation: str = "none",
) -> torch.Tensor:
    """y = act((bytes(x * x_factor) - zero) W^T * x_scale * weight_scale + bias) + residual; the product is exact."""
    values, scale, zero = bytes_of(x, x_scale, x_zero, x_factor)
    product = (values - zero).double() @ weight.double().transpose(0, 1)
    y = (product * scale.double() * weight_scale.double()).to(x.dtype)
    if bias is not None:
        y = y + bias
    y = ACTIVATIONS[activation](y)
    return y if residual is None else y + residual
