"""Device code of the activations, in float32, and the pass that follows a matrix product: bias, activation, residual.

    y = act(x + bias) + residual         over rows of WIDTH numbers; what is absent (None) is left out

The exact GELU has two forms: `erf` of the mathematics library for float32 results, and, for results that are rounded
to halves anyway, v * (1/2 + v Q(v^2)) with a polynomial Q of degree 8, least squares made even over |v| <= 4.3 and held
at its last value beyond, where the bracket is cut off at 0 and 1. Its error is at most 3.7e-5, and 3e-5 of the value
near zero (a half has 5e-4 there); it needs no division and no exponential, which would cost a product's epilogue more
than all the rest. For results of eight bits the degree of Q is 5 and the error at most 4.3e-4 (they have 1/16 of the
value, or a step of their range in 255).
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def gelu_erf(v, SHORT: tl.constexpr, EIGHT: tl.constexpr = False):
    """v * Phi(v), Phi the normal distribution."""
    if EIGHT:
        t = tl.minimum(v * v, 13.69)
        q = -5.35914048e-07 * t + 2.85872826e-05
        q = q * t - 0.000640576981
        q = q * t + 0.00798879476
        q = q * t - 0.0629514184
        q = q * t + 0.396773305
        return v * tl.clamp(v * q + 0.5, 0.0, 1.0)
    if SHORT:
        t = tl.minimum(v * v, 18.49)
        q = 4.19744587e-11 * t - 4.24900004e-09
        q = q * t + 1.90224146e-07
        q = q * t - 5.00617325e-06
        q = q * t + 8.71177204e-05
        q = q * t - 0.00107138678
        q = q * t + 0.00969515013
        q = q * t - 0.0661555979
        q = q * t + 0.398802081
        return v * tl.clamp(v * q + 0.5, 0.0, 1.0)
    return 0.5 * v * (1.0 + tl.erf(v * 0.7071067811865476))


@triton.jit
def gelu_tanh(v):
    """v * sigmoid(2 u) with u = sqrt(2 / pi) (v + 0.044715 v^3), which is 0.5 v (1 + tanh(u))."""
    u = 0.7978845608028654 * v * (1.0 + 0.044715 * v * v)
    return v * tl.sigmoid(2.0 * u)


@triton.jit
def activated(v, KIND: tl.constexpr, SHORT: tl.constexpr, EIGHT: tl.constexpr = False):
    """The activation called KIND of float32 numbers; SHORT says that the result is rounded to a half, EIGHT that it is
    rounded to eight bits."""
    if KIND == "relu":
        v = tl.maximum(v, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif KIND == "gelu_erf":
        v = gelu_erf(v, SHORT, EIGHT)
    elif KIND == "gelu_tanh":
        v = gelu_tanh(v)
    elif KIND == "silu":
        v = v * tl.sigmoid(v)
    return v


@triton.jit
def finish(
    x, bias, residual, y, rows, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, KIND: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program takes a tile of ROWS rows and COLUMNS columns; y may lie where x lies."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < WIDTH)[None, :]
    at = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    v = tl.load(x + at, inside, 0.0).to(tl.float32)
    if bias is not None:
        v += tl.load(bias + column, column < WIDTH, 0.0).to(tl.float32)[None, :]
    v = activated(v, KIND, y.dtype.element_ty != tl.float32)
    if residual is not None:
        v += tl.load(residual + at, inside, 0.0).to(tl.float32)
    tl.store(y + at, v.to(y.dtype.element_ty), inside)
