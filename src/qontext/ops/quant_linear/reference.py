"""QuantLinear in plain torch."""

import torch

from ..eight_bits import bytes_of, held, levels
from ..linear.reference import ACTIVATIONS


def reference(
    x: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    x_scale: torch.Tensor | None = None,
    x_zero: torch.Tensor | None = None,
    x_factor: torch.Tensor | None = None,
    row_scale: torch.Tensor | None = None,
    row_zero: torch.Tensor | None = None,
    y_scale: torch.Tensor | None = None,
    y_zero: torch.Tensor | None = None,
    y_factor: torch.Tensor | None = None,
    *,
    activation: str = "none",
) -> torch.Tensor:
    """y = act(x8 W^T * scales + bias) + residual, x8 being x in eight bits; the product is exact."""
    kind = "int8" if weight.dtype == torch.int8 else "float8_e4m3"
    rest = next((t for t in (bias, residual) if t is not None), None)
    if x.dtype == weight.dtype:
        scale, zero = (x_scale, x_zero) if row_scale is None else (row_scale, row_zero)
        assert scale is not None
        values, step = levels(x, scale, zero, torch.float64)
        dtype = torch.float32 if rest is None else rest.dtype
    elif kind == "int8":
        placed, step, zeros = bytes_of(x, x_scale, x_zero, x_factor)
        values, dtype = (placed - zeros).double(), x.dtype
    else:
        floats, scales, _ = held(x, kind, x_scale, None, x_factor)
        values, step, dtype = floats.double(), scales[..., None], x.dtype
    product = values @ weight.double().transpose(0, 1)
    y = (product * step.double() * weight_scale.double()).to(dtype)
    if bias is not None:
        y = y + bias
    y = ACTIVATIONS[activation](y)
    y = y if residual is None else y + residual
    return y if y_scale is None else held(y, kind, y_scale, y_zero, y_factor)[0]
