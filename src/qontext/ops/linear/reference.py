"""Linear in plain torch."""

import torch
import torch.nn.functional as F

ACTIVATIONS = {
    "none": lambda t: t,
    "relu": torch.relu,
    "gelu_erf": F.gelu,
    "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
    "silu": F.silu,
}


def reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    x_scale: torch.Tensor | None = None,
    weight_scale: torch.Tensor | None = None,
    y_scale: torch.Tensor | None = None,
    *,
    activation: str = "none",
) -> torch.Tensor:
    """y = act(x W^T + bias) + residual, with W = weight * weight_scale row by row where a scale is given.

    x_scale and y_scale are refused by the declaration's check, so they are always None here.
    """
    w = weight.to(x.dtype)
    if weight_scale is not None:
        w = w * weight_scale.to(x.dtype)[:, None]
    y = x @ w.transpose(0, 1)
    if bias is not None:
        y = y + bias
    y = ACTIVATIONS[activation](y)
    return y if residual is None else y + residual
