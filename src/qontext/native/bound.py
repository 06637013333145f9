"""Kernels bound once for many calls.

The wrappers of this package check every tensor of every call, which takes longer than a small kernel. A planned step
knows dtype and width of its operands beforehand, so here they are packed once and a call only adds the addresses.
"""

import struct
from collections.abc import Callable
from typing import Any

import torch

from qontext.errors import ShapeError
from qontext.native.checks import DTYPES
from qontext.native.elementwise import _ACTIVATION, KINDS
from qontext.native.library import functions
from qontext.native.norm import _NORM

_NORM_HEAD = struct.Struct("=8q")  # seven addresses and the number of rows
_ACTIVATION_HEAD = struct.Struct("=4q")  # three addresses and the number of rows

# (x, skip, bias, gamma, beta, out, sum_out): all contiguous and of the bound dtype; absent ones are None.
Norm = Callable[[Any, Any, Any, Any, Any, Any, Any], None]
# (x, bias, out): the same.
Activation = Callable[[Any, Any, Any], None]


def _address(tensor: Any) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _disagree(what: str, count: int, *others: Any) -> ShapeError:
    counts = [count, *(t.numel() for t in others if t is not None)]
    return ShapeError(f"the operands of {what} have {counts} elements; they must have the same number")


def bind_norm(size: int, dtype: torch.dtype, *, eps: float, rms: bool = False) -> Norm:
    """out = norm(x + skip + bias) * gamma + beta over rows of `size`, as `skip_layer_norm` of this package.

    Raises (when called) ShapeError when x, skip, out and sum_out differ in their number of elements.
    """
    code = DTYPES[dtype]
    tail = _NORM.pack(*[0] * 8, size, size, size, size, size, code, code, rms, eps)[_NORM_HEAD.size :]
    kernel, pack, threads = functions().qx_layer_norm, _NORM_HEAD.pack, torch.get_num_threads

    def norm(x: Any, skip: Any, bias: Any, gamma: Any, beta: Any, out: Any, sum_out: Any) -> None:
        count = x.numel()
        if (
            out.numel() != count
            or (skip is not None and skip.numel() != count)
            or (sum_out is not None and sum_out.numel() != count)
        ):
            raise _disagree("a layer norm", count, skip, out, sum_out)
        head = pack(
            x.data_ptr(), _address(skip), _address(bias), _address(gamma), _address(beta),
            out.data_ptr(), _address(sum_out), count // size,
        )  # fmt: skip
        if kernel(head + tail, threads()):
            raise MemoryError("no memory for the scratch row of a layer norm")

    return norm


def bind_activation(size: int, dtype: torch.dtype, kind: str) -> Activation:
    """out = act(x + bias) over rows of `size`, as `bias_act` of this package; `out` may be x.

    Raises (when called) ShapeError when x and out differ in their number of elements.
    """
    code = DTYPES[dtype]
    tail = _ACTIVATION.pack(*[0] * 4, size, size, size, code, code, KINDS[kind])[_ACTIVATION_HEAD.size :]
    kernel, pack, threads = functions().qx_bias_act, _ACTIVATION_HEAD.pack, torch.get_num_threads

    def activate(x: Any, bias: Any, out: Any) -> None:
        count = x.numel()
        if out.numel() != count:
            raise _disagree("an activation", count, out)
        kernel(pack(x.data_ptr(), _address(bias), out.data_ptr(), count // size) + tail, threads())

    return activate
