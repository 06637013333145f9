"""What Linear's own GPU kernels share: sizes, what they take, and the way from a call to rows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...graph.dims import product, text
from ..call import Bound, Call
from ..gpu_launch import triton_is_here
from ..native_kernel import even_or_none
from .gpu_vendor import one_float_dtype

_HALVES = ("float16", "bfloat16")

# (x [rows, K], weight, bias, residual [rows, N], y [rows, N]): fills y; there is at least one row.
Compute = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor], None]


def sizes(call: Call) -> tuple[int | None, int, int]:
    """Rows of x (None when the number is open), rows of the weight and K, which have to be numbers."""
    x, weight = call.inputs[:2]
    assert x is not None
    assert weight is not None
    assert weight.shape is not None
    count = None if x.shape is None else product(x.shape[:-1])
    n, k = weight.shape
    assert isinstance(n, int)
    assert isinstance(k, int)
    return count if isinstance(count, int) else None, n, k


def least_rows(call: Call, least: int) -> str | None:
    """None when x has that many rows, or a number of them that is not known yet."""
    rows, _, _ = sizes(call)
    if rows is not None and 0 < rows < least:
        return f"x has {rows} rows, this kernel is meant for at least {least}"
    return None


def most_rows(call: Call, most: int) -> str | None:
    """None when x has no more rows than that, or a number of them that is not known yet."""
    rows, _, _ = sizes(call)
    return f"x has {rows} rows, this kernel is meant for at most {most}" if rows is not None and rows > most else None


def halves_of_numbers(call: Call, allowed: Sequence[str] = _HALVES) -> str | None:
    """Triton is here, operands are of an allowed dtype, and the weight's sizes are multiples of 8 other than 0."""
    weight = call.inputs[1]
    assert weight is not None
    reason = triton_is_here() or one_float_dtype(call, allowed)
    if reason is not None:
        return reason
    if weight.shape is None or not all(isinstance(d, int) and d > 0 and d % 8 == 0 for d in weight.shape):
        return f"the weight is {text(weight.shape)}, the kernel takes multiples of 8 other than 0"
    return None


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on an address that copies of 16 bytes can take: what torch hands out has one, a slice may not."""
    return tensor if tensor.data_ptr() % 16 == 0 else tensor.clone()


def over_rows(call: Call, compute: Compute) -> Bound:
    """Linear for any number of rows and leading axes by a function over rows."""
    _, n, k = sizes(call)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, weight, bias, residual = (even_or_none(t) for t in inputs[:4])
        assert x is not None
        assert weight is not None
        y: torch.Tensor = x.new_empty((*x.shape[:-1], n)) if out is None else out[0]
        rows = x.numel() // k
        if rows:
            compute(x.view(rows, k), weight, bias, residual, y.view(rows, n))
        return y

    return run
