"""Activations with an optional bias."""

import struct

import torch

from qontext.errors import ArgumentError
from qontext.native.checks import DTYPES, as_rows, contiguous, dtype_code, has_shape, on_cpu, same_dtype
from qontext.native.library import functions

_ACTIVATION = struct.Struct("=10q")
KINDS = {"relu": 0, "gelu": 1, "gelu_tanh": 2, "silu": 3}


def bias_act(x: torch.Tensor, kind: str, *, out: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """out = act(x + bias) with act one of relu, gelu (erf), gelu_tanh, silu; computed in fp32.

    x, out: `[..., F]` of one dtype, `out` may be `x`; bias: `[F]`, fp32 or of that dtype.
    Raises ShapeError, DTypeError, ArgumentError, DeviceError.
    """
    if kind not in KINDS:
        raise ArgumentError(f"bias_act was asked for {kind!r}; known are {', '.join(KINDS)}")
    code = dtype_code("x", x)
    rows, size, x_stride = as_rows("x", x)
    same_dtype("out", out, x.dtype)
    has_shape("out", out, tuple(x.shape))
    out_stride = as_rows("out", out)[2]
    if bias is None and x_stride == size == out_stride:
        rows, size = _even(rows * size)
        x_stride = out_stride = size
    bias_code = code
    if bias is not None:
        on_cpu("bias", bias)
        contiguous("bias", bias)
        has_shape("bias", bias, (size,))
        if bias.dtype != torch.float32:
            same_dtype("bias", bias, x.dtype)
        bias_code = DTYPES[bias.dtype]
    block = _ACTIVATION.pack(
        x.data_ptr(),
        bias.data_ptr() if bias is not None else 0,
        out.data_ptr(),
        rows,
        size,
        x_stride,
        out_stride,
        code,
        bias_code,
        KINDS[kind],
    )
    functions().qx_bias_act(block, torch.get_num_threads())
    return out


def _even(count: int) -> tuple[int, int]:
    """A flat array as rows that threads can share: rows of 4096 where that divides, else one row."""
    return (count // 4096, 4096) if count % 4096 == 0 else (1, count)
