"""Activations and products of ONNX Runtime's `com.microsoft` domain."""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch

from ..ops.gelu.op import OP as GELU
from .contrib_site import Site

Results = Sequence[ir.Value | None]

_ACTIVATIONS = ("", "Relu", "Tanh", "Sigmoid", "Softplus", "Softsign")


def bias_gelu(site: Site) -> Results:
    """BiasGelu: exact GELU of A + B, B `[E]`."""
    return [site.add(GELU, site.needed(0, "A"), site.needed(1, "B"), approximate="none")]


def gelu(site: Site) -> Results:
    """Gelu: exact."""
    return [site.add(GELU, site.needed(0, "X"), approximate="none")]


def fast_gelu(site: Site) -> Results:
    """FastGelu: the tanh form of X + bias."""
    return [site.add(GELU, site.needed(0, "X"), site.input(1), approximate="tanh")]


def quick_gelu(site: Site) -> Results:
    """QuickGelu: x * sigmoid(alpha * x)."""
    x = site.needed(0, "X")
    alpha = site.constant(torch.tensor(site.number("alpha", 1.702), dtype=site.dtype(x)), "alpha")
    return [site.add("Mul", x, site.add("Sigmoid", site.add("Mul", x, alpha)))]


def fused_matmul(site: Site) -> Results:
    """FusedMatMul: alpha * A @ B, either transposed in its last two axes."""
    for name in ("transBatchA", "transBatchB"):
        site.integer(name, 0, (0,))
    sides = []
    for index, name in ((0, "A"), (1, "B")):
        value = site.needed(index, name)
        if site.integer(f"trans{name}", 0, (0, 1)):
            rank = len(site.shape(value, name))
            # A vector has nothing to transpose.
            if rank > 1:
                value = site.add("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])
        sides.append(value)
    y = site.add("MatMul", *sides)
    alpha = site.number("alpha", 1.0)
    if alpha != 1.0:
        y = site.add("Mul", y, site.constant(torch.tensor(alpha, dtype=site.dtype(sides[0])), "alpha"))
    return [y]


def fused_gemm(site: Site) -> Results:
    """FusedGemm: Gemm with an activation after it."""
    settings: dict[str, Any] = {name: site.number(name, 1.0) for name in ("alpha", "beta")}
    settings |= {name: site.integer(name, 0, (0, 1)) for name in ("transA", "transB")}
    activation = site.word("activation", "")
    if activation not in _ACTIVATIONS:
        raise site.refusal(f"attribute 'activation' is {activation!r}; allowed is one of {', '.join(_ACTIVATIONS[1:])}")
    # None of the activations above has parameters; ONNX Runtime writes them all the same.
    for name in ("activation_alpha", "activation_beta", "activation_gamma"):
        site.number(name, 0.0)
    y = site.add("Gemm", site.needed(0, "A"), site.needed(1, "B"), site.input(2), **settings)
    return [site.add(activation, y) if activation else y]
