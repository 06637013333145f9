"""Linear layers with weights packed once: y = act(x W^T + bias) + residual."""

import struct
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from qontext.errors import ArgumentError, DTypeError, ShapeError
from qontext.native.checks import DTYPES, contiguous, has_shape, on_cpu, same_dtype
from qontext.native.elementwise import KINDS
from qontext.native.library import ISAS, functions, isa

_LINEAR = struct.Struct("=17q")
_HEAD = struct.Struct("=6q")  # five addresses and the number of rows
ALIGNMENT = 64

# (x [R, K], bias [M] or None, residual [R, M] or None, out [R, M]): all contiguous and of the bound dtype.
Linear = Callable[[Any, Any, Any, Any], None]


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A weight `[M, K]` in the order in which one instruction set reads it; `source` is the weight as it came.

    `dtype` is that of x; `group` the values along K that share a scale where the weight is in four bits, else 0.
    """

    data: torch.Tensor
    rows: int
    columns: int
    dtype: torch.dtype
    isa: str
    source: torch.Tensor
    group: int = 0


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
    return _packed(weight, *weight.shape, weight.dtype)


def _packed(
    weight: torch.Tensor,
    m: int,
    k: int,
    dtype: torch.dtype,
    group: int = 0,
    scale: torch.Tensor | None = None,
    zero: torch.Tensor | None = None,
) -> PackedWeight:
    name = isa()
    code, index = DTYPES.get(dtype, -1), ISAS.index(name)
    size = functions().qx_linear_bytes(_block(m, k, code, index, group=group)) if code >= 0 else 0
    if not size:
        raise DTypeError(f"weight is {dtype}, which {name} does not multiply here")
    room = torch.empty(size + ALIGNMENT, dtype=torch.uint8)
    start = -room.data_ptr() % ALIGNMENT
    data = room[start : start + size]
    given = (0 if scale is None else scale.data_ptr(), 0 if zero is None else zero.data_ptr())
    block = _block(m, k, code, index, weight.data_ptr(), data.data_ptr(), *given, group)
    functions().qx_linear_pack(block, torch.get_num_threads())
    return PackedWeight(data, m, k, dtype, name, weight, group)


def pack_groups(
    weight: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, group: int, dtype: torch.dtype
) -> PackedWeight:
    """The packed form of a weight in four bits, for x of float32 or bfloat16.

    Args:
        weight: uint8 `[M, K / 2]`, two values a byte, the first in the low half.
        scale, zero: float32 and uint8 `[M, K / group]`: value = (bits - zero) * scale.
        group: even, and a divisor of K.
    Raises:
        ArgumentError, DTypeError or ShapeError.
    """
    for name, tensor, kind in (
        ("weight", weight, torch.uint8),
        ("scale", scale, torch.float32),
        ("zero", zero, torch.uint8),
    ):
        on_cpu(name, tensor)
        same_dtype(name, tensor, kind)
        contiguous(name, tensor)
    if weight.ndim != 2 or 0 in weight.shape or group < 2 or group % 2 or (2 * weight.shape[1]) % group:
        raise ShapeError(
            f"weight has shape {tuple(weight.shape)} and groups of {group}; wanted [M, K / 2] with no axis of 0 and K "
            "a multiple of the group, which is even"
        )
    m, k = weight.shape[0], 2 * weight.shape[1]
    for name, tensor in (("scale", scale), ("zero", zero)):
        has_shape(name, tensor, (m, k // group))
    return _packed(weight, m, k, dtype, group, scale, zero)


def bind_linear(weight: PackedWeight, activation: str | None) -> Linear:
    """y = act(x W^T + bias) + residual for one packed weight; `activation` is a kind of `bias_act`, or None.

    Raises (when called) ShapeError when operands differ in their number of elements.
    """
    if activation is not None and activation not in KINDS:
        raise ArgumentError(f"a linear layer was asked for {activation!r}; known are {', '.join(KINDS)} and None")
    m, k = weight.rows, weight.columns
    kind = -1 if activation is None else KINDS[activation]
    fixed = (m, k, k, m, m, DTYPES[weight.dtype], kind, ISAS.index(weight.isa), 0, 0, weight.group)
    block = _LINEAR.pack(*[0] * 6, *fixed)
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


def _block(
    m: int,
    k: int,
    dtype: int,
    isa_index: int,
    weight: int = 0,
    out: int = 0,
    scale: int = 0,
    zero: int = 0,
    group: int = 0,
) -> bytes:
    return _LINEAR.pack(0, weight, 0, 0, out, 0, m, k, k, m, m, dtype, -1, isa_index, scale, zero, group)
