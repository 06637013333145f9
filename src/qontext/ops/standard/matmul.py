"""Matrix products of real numbers: MatMul, Gemm, Einsum."""

import torch

from ...errors import UnsupportedOperatorError
from .attributes import flag, number
from .declare import Attributes, Context, Inputs
from .operands import all_needed, meeting_device, needed, optional, together


def matmul(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """a @ b as in numpy: leading axes broadcast, vectors become rows or columns."""
    a, b = together(needed("MatMul", inputs, 0), needed("MatMul", inputs, 1))
    return torch.matmul(a, b)


def gemm(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """alpha * A @ B + beta * C, A `[M, K]` and B `[K, N]` after transposing if so asked, C broadcasts."""
    at = meeting_device(inputs)
    a, b, c = needed("Gemm", inputs, 0, at), needed("Gemm", inputs, 1, at), optional(inputs, 2, at)
    a = a.t() if flag("Gemm", attributes, "transA") else a
    b = b.t() if flag("Gemm", attributes, "transB") else b
    alpha, beta = number("Gemm", attributes, "alpha", 1.0), number("Gemm", attributes, "beta", 1.0)
    if c is not None and a.is_floating_point():
        return torch.addmm(c, a, b, beta=beta, alpha=alpha)
    # Integer products keep their type, so the factors are rounded as the specification's casts would.
    factors = (alpha, beta) if a.is_floating_point() else (int(alpha), int(beta))
    y = torch.mm(a, b) * factors[0] if factors[0] != 1 else torch.mm(a, b)
    return y if c is None else y + c * factors[1]


def einsum(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """A sum of products in Einstein's notation."""
    equation = attributes.get("equation")
    if not isinstance(equation, str):
        raise UnsupportedOperatorError(
            f"Einsum: attribute 'equation' is {equation!r}; allowed is a text such as 'bij,bjk->bik'"
        )
    return torch.einsum(equation, *together(*all_needed("Einsum", inputs)))
