"""Gelu in plain torch."""

import math

import torch


def reference(x: torch.Tensor, bias: torch.Tensor | None = None, *, approximate: str = "none") -> torch.Tensor:
    """y = v * Phi(v) with v = x + bias; Phi is the normal distribution, or its tanh approximation."""
    v = x if bias is None else x + bias
    if approximate == "tanh":
        return 0.5 * v * (1 + torch.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))
    return 0.5 * v * (1 + torch.erf(v / math.sqrt(2)))
