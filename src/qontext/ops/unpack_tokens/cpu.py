"""UnpackTokens on the CPU."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from ... import native
from ...graph.dims import text
from ..call import Bound, Call, Kernel
from ..native_kernel import even, native_is_here


def _native_supports(call: Call) -> str | None:
    x = call.inputs[0]
    assert x is not None
    if x.shape is not None and 0 in x.shape[1:]:
        return f"the rows of x {text(x.shape)} are empty"
    return native_is_here()


def _native_bind(call: Call) -> Bound:
    scatter = native.scatter_rows

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, token_index, mask = inputs
        padded = x.new_empty((*mask.shape, *x.shape[1:])) if out is None else out[0]
        width = math.prod(x.shape[1:])
        scatter(even(x).view(-1, width), even(token_index), out=padded.view(-1, width))
        return padded

    return run


def _torch_bind(call: Call) -> Bound:
    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, token_index, mask = inputs
        padded = x.new_zeros((*mask.shape, *x.shape[1:])) if out is None else out[0].zero_()
        padded.view(mask.numel(), *x.shape[1:]).index_copy_(0, token_index, x)
        return padded

    return run


KERNELS = (
    Kernel("native.unpack_tokens", "cpu", _native_supports, _native_bind, writes_out=True),
    Kernel("torch.unpack_tokens", "cpu", lambda call: None, _torch_bind, writes_out=True),
)
