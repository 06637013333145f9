"""Matrix products of 8-bit integers: MatMulInteger, QLinearMatMul."""

import torch

from .declare import Attributes, Context, Inputs
from .operands import meeting_device, needed, optional, together
from .quantize import saturated


def _per_row(parameter: torch.Tensor) -> torch.Tensor:
    """A scalar, or one value for each row of the first matrix."""
    return parameter.unsqueeze(-1) if parameter.ndim == 1 and parameter.numel() > 1 else parameter


def _product(
    a: torch.Tensor, b: torch.Tensor, a_zero: torch.Tensor | None, b_zero: torch.Tensor | None
) -> torch.Tensor:
    """(a - a_zero) @ (b - b_zero) in float64, which holds sums of 8-bit products exactly."""
    left, right = a.double(), b.double()
    if a_zero is not None:
        left = left - _per_row(a_zero).double()
    if b_zero is not None:
        right = right - b_zero.double()
    return torch.matmul(left, right)


def matmul_integer(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The int32 product of two 8-bit matrices less their zero points."""
    op = "MatMulInteger"
    at = meeting_device(inputs)
    a, b = needed(op, inputs, 0, at), needed(op, inputs, 1, at)
    product = _product(a, b, optional(inputs, 2, at), optional(inputs, 3, at))
    # int64 first: sums beyond 32 bits wrap, as the specification lets them.
    return product.to(torch.int64).to(torch.int32)


def qlinear_matmul(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The product of two quantised matrices, quantised with the scale and zero point of the result."""
    op = "QLinearMatMul"
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = together(*(needed(op, inputs, i) for i in range(8)))
    product = _product(a, b, a_zero, b_zero)
    scale = _per_row(a_scale).double() * b_scale.double() / y_scale.double()
    return saturated(torch.round(product * scale) + y_zero.double(), y_zero.dtype)
