"""Rows by index: where tokens are, pack them (gather) and unpack them (scatter with zero fill)."""

import struct

import torch

from qontext.errors import DTypeError, InputError
from qontext.native.checks import as_rows, contiguous, has_shape, index_bytes, on_cpu, same_dtype
from qontext.native.library import functions

_ROWS = struct.Struct("=9q")
_PACK_INDEX = struct.Struct("=6q")
_MASKS = {torch.bool: 0, torch.int32: 1, torch.int64: 2, torch.float32: 3}


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


def pack_index(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Where the mask `[B, S]` (bool, int32, int64 or float32) is not zero.

    Returns the places in the flattened mask, int64 `[T]`, the boundaries of the rows among them, int32 `[B+1]`, and the
    largest number in a row. Raises ArgumentError, DTypeError, DeviceError.
    """
    kind = _MASKS.get(mask.dtype)
    if kind is None:
        raise DTypeError(f"mask is {mask.dtype}; allowed are {', '.join(map(str, _MASKS))}")
    on_cpu("mask", mask)
    contiguous("mask", mask)
    rows, length = mask.shape
    index = torch.empty(rows * length + 1, dtype=torch.int64)
    boundaries = torch.empty(rows + 1, dtype=torch.int32)
    block = _PACK_INDEX.pack(mask.data_ptr(), index.data_ptr(), boundaries.data_ptr(), rows, length, kind)
    longest = functions().qx_pack_index(block)
    return index[: int(boundaries[rows])], boundaries, longest


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
