"""Activation functions. Half types are computed in float32 and rounded once."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from .attributes import number, word
from .data_types import compute_dtype
from .declare import Attributes, Context, Inputs, StandardOp
from .operands import needed, together


def activation(name: str, since: int, function: Callable[..., torch.Tensor], **defaults: float) -> StandardOp:
    """An operator of one tensor and float attributes, given here with their defaults."""

    def run(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
        x = needed(name, inputs, 0)
        values = {key: number(name, attributes, key, default) for key, default in defaults.items()}
        return function(x.to(compute_dtype(x.dtype)), **values).to(x.dtype)

    return StandardOp(name, since, run)


def elu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """x above zero, alpha * (exp(x) - 1) below."""
    return torch.where(x > 0, x, alpha * torch.expm1(x))


def celu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    return torch.where(x > 0, x, alpha * torch.expm1(x / alpha))


def selu(x: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """gamma * x above zero, gamma * alpha * (exp(x) - 1) below."""
    return gamma * elu(x, alpha)


def leaky_relu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """x from zero on, alpha * x below."""
    return F.leaky_relu(x, alpha)


def hard_sigmoid(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """alpha * x + beta, held between 0 and 1."""
    return (alpha * x + beta).clamp(0, 1)


def thresholded_relu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """x above alpha, else 0."""
    return torch.where(x > alpha, x, 0)


def shrink(x: torch.Tensor, lambd: float, bias: float) -> torch.Tensor:
    """x moved towards zero by `bias` outside [-lambd, lambd], 0 inside."""
    return torch.where(x > lambd, x - bias, torch.where(x < -lambd, x + bias, 0))


def softplus(x: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(x)), exact for large x of either sign."""
    return torch.logaddexp(x, torch.zeros((), dtype=x.dtype, device=x.device))


def swish(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """x * sigmoid(alpha * x)."""
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


def gelu(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """x * Phi(x), exact (erf) or with the tanh approximation."""
    x = needed("Gelu", inputs, 0)
    kind = word("Gelu", attributes, "approximate", ("none", "tanh"), "none")
    return F.gelu(x.to(compute_dtype(x.dtype)), approximate=kind).to(x.dtype)


def swiglu(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """swish(gate) * value."""
    gate, value = together(needed("SwiGLU", inputs, 0), needed("SwiGLU", inputs, 1))
    wide = compute_dtype(gate.dtype)
    gated = swish(gate.to(wide), number("SwiGLU", attributes, "alpha", 1.0))
    return (gated * value.to(wide)).to(gate.dtype)


def prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """x from zero on, slope * x below; the slope broadcasts to x."""
    return torch.where(x < 0, x * slope, x)
