"""Rows by index: pack tokens (gather) and unpack them (scatter with zero fill)."""

import struct

import torch

from qontext.errors import InputError
from qontext.native.checks import as_rows, has_shape, index_bytes, same_dtype
from qontext.native.library import functions

_ROWS = struct.Struct("=9q")


def _block(x: torch.Tensor, index: torch.Tensor, out: torch.Tensor, bound: int) -> bytes:
    same_dtype("out", out, x.dtype)
    _, size, x_stride = as_rows("x", x)
    out_stride = as_rows("out", out)[2]
    width = x.element_size()
    return _ROWS.pack(
        x.data_ptr(),
        index.data_ptr(),
        out.data_ptr(),
        index.numel(),
        size * width,
        x_stride * width,
        out_stride * width,
        bound,
        index_bytes("index", index),
    )


def _complain(index: torch.Tensor, bad: int, bound: int) -> None:
    if bad >= 0:
        raise InputError(f"index[{bad}] is {int(index[bad])}; allowed are 0 to {bound - 1}")


def gather_rows(x: torch.Tensor, index: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """out[i] = x[index[i]] for x `[R, E]`, index int64 or int32 `[T]`, out `[T, E]`, of any dtype.

    Raises InputError for an index out of range (then `out` is untouched), ShapeError, DTypeError, DeviceError.
    """
    has_shape("out", out, (*index.shape, *x.shape[1:]))
    bound = x.shape[0]
    _complain(index, functions().qx_gather_rows(_block(x, index, out, bound), torch.get_num_threads()), bound)
    return out


def scatter_rows(x: torch.Tensor, index: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """out[index[i]] = x[i] and zero in all other rows, for x `[T, E]`, index `[T]` without repeats, out `[R, E]`.

    Raises InputError for an index out of range (then `out` is untouched), ShapeError, DTypeError, DeviceError.
    """
    has_shape("x", x, (*index.shape, *out.shape[1:]))
    bound = out.shape[0]
    _complain(index, functions().qx_scatter_rows(_block(x, index, out, bound), torch.get_num_threads()), bound)
    return out
