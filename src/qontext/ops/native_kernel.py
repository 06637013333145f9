"""What operators share that run on qontext's own CPU kernels (`qontext.native`)."""

from collections.abc import Sequence
from typing import Any

import torch

from .. import native
from .call import Call
from .kernel_checks import dtypes_are, last_axis_known

_FLOATS = ("float32", "float16", "bfloat16")


def native_is_here() -> str | None:
    """None when the kernel library can be called, else why it cannot."""
    return None if native.available() else f"the CPU kernel library is {native.status().reason}"


def native_takes_floats(call: Call) -> str | None:
    """The kernel library is here and all float operands of the call share one dtype that it knows."""
    return native_is_here() or dtypes_are(call, _FLOATS)


def native_takes_rows(call: Call) -> str | None:
    """As `native_takes_floats`, with a first input whose last axis is a number other than 0."""
    x = call.inputs[0]
    assert x is not None
    reason = native_takes_floats(call) or last_axis_known(x, "its first input")
    return reason or ("its first input has rows of no elements" if x.shape and x.shape[-1] == 0 else None)


def dtype_of(call: Call) -> torch.dtype:
    """The float dtype of the call's first input."""
    x = call.inputs[0]
    assert x is not None
    return x.type.torch


def even(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself when it is contiguous, as the kernels need it, else a contiguous copy."""
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def even_or_none(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return tensor if tensor is None or tensor.is_contiguous() else tensor.contiguous()


def place(out: Sequence[Any] | None, index: int, like: torch.Tensor) -> torch.Tensor:
    """The tensor that takes output `index`: the caller's, or a fresh one of the shape of `like`."""
    return torch.empty_like(like) if out is None else out[index]
