"""Linear layers with weights packed once: y = act(x W^T + bias) + residual."""

import struct
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from qontext.errors import ArgumentError, DTypeError, ShapeError
from qontext.native.checks import DTYPES, contiguous, on_cpu
from qontext.native.elementwise import KINDS
from qontext.native.library import ISAS, functions, isa

_LINEAR = struct.Struct("=14q")
_HEAD = struct.Struct("=6q")  # five addresses and the number of rows
ALIGNMENT = 64

# (x [R, K], bias [M] or None, residual [R, M] or None, out [R, M]): all contiguous and of the bound dtype.
Linear = Callable[[Any, Any, Any, Any], None]


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A weight `[M, K]` in the order in which one instruction set reads it; `source` is the weight as it came."""

    data: torch.Tensor
    rows: int
    columns: int
    dtype: torch.dtype
    isa: str
    source: torch.Tensor


# Programs over the same weights share their packed form, which holds its source: the key stays true while it lives.
_PACKED: weakref.WeakValueDictionary[tuple[object, ...], PackedWeight] = weakref.WeakValueDictionary()


def shared_weight(weight: torch.Tensor) -> PackedWeight:
    """`pack_weight` for a weight that nobody writes to: packed once, however many layers use it."""
    key = (weight.data_ptr(), tuple(weight.shape), weight.dtype, isa())
    packed = _PACKED.get(key)
    if packed is None:
        packed = _PACKED[key] = pack_weight(weight)
    return packed


def multiplies(dtype: torch.dtype) -> bool:
    """Whether the instruction set in force multiplies operands of a dtype with sums in float32."""
    code = DTYPES.get(dtype)
    return code is not None and bool(functions().qx_linear_bytes(_block(1, 1, code, ISAS.index(isa()))))


def pack_weight(weight: torch.Tensor) -> PackedWeight:
    """The packed form of a weight `[M, K]`, float32 or bfloat16. Raises ArgumentError, DTypeError or ShapeError."""
    on_cpu("weight", weight)
    if weight.ndim != 2 or 0 in weight.shape:
        raise ShapeError(f"weight has shape {tuple(weight.shape)}; wanted [M, K] with no axis of 0")
    contiguous("weight", weight)
    name = isa()
    code = DTYPES.get(weight.dtype, -1)
    m, k = weight.shape
    size = functions().qx_linear_bytes(_block(m, k, code, ISAS.index(name))) if code >= 0 else 0
    if not size:
        raise DTypeError(f"weight is {weight.dtype}, which {name} does not multiply here")
    room = torch.empty(size + ALIGNMENT, dtype=torch.uint8)
    start = -room.data_ptr() % ALIGNMENT
    data = room[start : start + size]
    block = _block(m, k, code, ISAS.index(name), weight.data_ptr(), data.data_ptr())
    functions().qx_linear_pack(block, torch.get_num_threads())
    return PackedWeight(data, m, k, weight.dtype, name, weight)


def bind_linear(weight: PackedWeight, activation: str | None) -> Linear:
    """y = act(x W^T + bias) + residual for one packed weight; `activation` is a kind of `bias_act`, or None.

    Raises (when called) ShapeError when operands differ in their number of elements.
    """
    if activation is not None and activation not in KINDS:
        raise ArgumentError(f"a linear layer was asked for {activation!r}; known are {', '.join(KINDS)} and None")
    m, k = weight.rows, weight.columns
    kind = -1 if activation is None else KINDS[activation]
    block = _LINEAR.pack(*[0] * 6, m, k, k, m, m, DTYPES[weight.dtype], kind, ISAS.index(weight.isa))
    tail = block[_HEAD.size :]
    data = weight.data
    packed = data.data_ptr()
    kernel, pack, threads = functions().qx_linear, _HEAD.pack, torch.get_num_threads

    def linear(x: Any, bias: Any, residual: Any, out: Any) -> None:
        rows = out.numel() // m
        if x.numel() != rows * k or (residual is not None and residual.numel() != rows * m):
            counts = [x.numel(), out.numel(), *([] if residual is None else [residual.numel()])]
            raise ShapeError(f"a linear layer {k} -> {m} got x, out (and residual) of {counts} elements")
        head = pack(
            x.data_ptr(), packed, 0 if bias is None else bias.data_ptr(),
            0 if residual is None else residual.data_ptr(), out.data_ptr(), rows,
        )  # fmt: skip
        if kernel(head + tail, threads()):
            raise MemoryError("no memory for the scratch of a linear layer")

    linear.__dict__["weight"] = weight  # keeps the memory behind `packed`
    return linear


def _block(m: int, k: int, dtype: int, isa_index: int, weight: int = 0, out: int = 0) -> bytes:
    return _LINEAR.pack(0, weight, 0, 0, out, 0, m, k, k, m, m, dtype, -1, isa_index)
