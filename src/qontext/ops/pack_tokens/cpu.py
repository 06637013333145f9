"""PackTokens on the CPU."""

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
    if x.shape is not None and 0 in x.shape[2:]:
        return f"the rows of x {text(x.shape)} are empty"
    return native_is_here()


def _native_bind(call: Call) -> Bound:
    gather = native.gather_rows

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, token_index = even(inputs[0]), inputs[1]
        packed = x.new_empty((len(token_index), *x.shape[2:])) if out is None else out[0]
        width = math.prod(x.shape[2:])
        gather(x.view(-1, width), even(token_index), out=packed.view(-1, width))
        return packed

    return run


def _torch_bind(call: Call) -> Bound:
    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        return torch.index_select(inputs[0].flatten(0, 1), 0, inputs[1], out=None if out is None else out[0])

    return run


KERNELS = (
    Kernel("native.pack_tokens", "cpu", _native_supports, _native_bind, writes_out=True),
    Kernel("torch.pack_tokens", "cpu", lambda call: None, _torch_bind, writes_out=True),
)
