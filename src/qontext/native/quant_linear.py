"""Linear layers in eight bits: int8 weights packed once, x turned into bytes row by row as it is read."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from qontext.errors import ArgumentError, DTypeError, ShapeError
from qontext.native.checks import DTYPES, contiguous, has_shape, on_cpu, same_dtype
from qontext.native.elementwise import KINDS
from qontext.native.library import ISAS, functions, isa
from qontext.native.linear import ALIGNMENT

_BLOCK = struct.Struct("=17qd")
_HEAD = struct.Struct("=8q")  # seven addresses and the number of rows
MOST_COLUMNS = 60_000  # along K: sums of more products of bytes could leave 32 bits

# (x [R, K], bias [M] or None, residual [R, M] or None, out [R, M]): all contiguous and of the bound dtype.
QuantLinear = Callable[[Any, Any, Any, Any], None]


@dataclass(frozen=True)
class PackedBytes:
    """An int8 weight `[M, K]` with its scales, in the order in which one instruction set reads it."""

    data: torch.Tensor
    rows: int
    columns: int
    isa: str


def pack_bytes(weight: torch.Tensor, scale: torch.Tensor) -> PackedBytes:
    """The packed form of an int8 weight `[M, K]` with float32 scales `[M]`.

    Raises ArgumentError, DTypeError or ShapeError.
    """
    on_cpu("weight", weight)
    if weight.ndim != 2 or 0 in weight.shape or weight.shape[1] > MOST_COLUMNS:
        raise ShapeError(
            f"weight has shape {tuple(weight.shape)}; wanted [M, K] with no axis of 0 and K up to {MOST_COLUMNS}"
        )
    for name, tensor, dtype in (("weight", weight, torch.int8), ("weight_scale", scale, torch.float32)):
        same_dtype(name, tensor, dtype)
        contiguous(name, tensor)
    m, k = weight.shape
    has_shape("weight_scale", scale, (m,))
    name = isa()
    index = ISAS.index(name)
    size = functions().qx_quant_linear_bytes(_block(m, k, index))
    room = torch.empty(size + ALIGNMENT, dtype=torch.uint8)
    start = -room.data_ptr() % ALIGNMENT
    data = room[start : start + size]
    block = _block(m, k, index, weight.data_ptr(), scale.data_ptr(), data.data_ptr())
    functions().qx_quant_linear_pack(block, torch.get_num_threads())
    return PackedBytes(data, m, k, name)


def bind_quant_linear(
    weight: PackedBytes,
    dtype: torch.dtype,
    activation: str | None,
    static: tuple[float, int] | None = None,
    factor: torch.Tensor | None = None,
) -> QuantLinear:
    """y = act(q(x) W^T + bias) + residual for one packed weight.

    Args:
        dtype: of x, bias, residual and the result: float32, bfloat16 or float16.
        activation: a kind of `bias_act`, or None.
        static: scale and zero (0 to 255) of x; without them every row gets its own, from its range with 0 in it.
        factor: float32 [K] by which x is multiplied, column by column, before it becomes bytes.

    The bound function raises ShapeError when operands differ in their number of elements.
    """
    if activation is not None and activation not in KINDS:
        raise ArgumentError(f"a linear layer was asked for {activation!r}; known are {', '.join(KINDS)} and None")
    if dtype not in DTYPES:
        raise DTypeError(f"x is {dtype}; the CPU kernels take float32, bfloat16 and float16")
    if static is not None and not (0 < static[0] < float("inf") and 0 <= static[1] <= 255):
        raise ArgumentError(f"x has scale {static[0]} and zero {static[1]}; wanted a scale over 0 and a zero in 0..255")
    m, k = weight.rows, weight.columns
    if factor is not None:
        same_dtype("factor", factor, torch.float32)
        contiguous("factor", factor)
        has_shape("factor", factor, (k,))
    kind = -1 if activation is None else KINDS[activation]
    scale, zero = static or (0.0, -1)
    block = _BLOCK.pack(*[0] * 8, m, k, k, m, m, DTYPES[dtype], kind, ISAS.index(weight.isa), zero, scale)
    tail = block[_HEAD.size :]
    data = weight.data
    packed, columns = data.data_ptr(), 0 if factor is None else factor.data_ptr()
    kernel, pack, threads = functions().qx_quant_linear, _HEAD.pack, torch.get_num_threads

    def linear(x: Any, bias: Any, residual: Any, out: Any) -> None:
        rows = out.numel() // m
        if x.numel() != rows * k or (residual is not None and residual.numel() != rows * m):
            counts = [x.numel(), out.numel(), *([] if residual is None else [residual.numel()])]
            raise ShapeError(f"a linear layer {k} -> {m} got x, out (and residual) of {counts} elements")
        head = pack(
            x.data_ptr(), packed, 0 if bias is None else bias.data_ptr(),
            0 if residual is None else residual.data_ptr(), 0, columns, out.data_ptr(), rows,
        )  # fmt: skip
        if kernel(head + tail, threads()):
            raise MemoryError("no memory for the scratch of a linear layer")

    linear.__dict__["held"] = (data, factor)  # keeps the memory behind the addresses
    return linear


def _block(m: int, k: int, isa_index: int, weight: int = 0, scale: int = 0, out: int = 0) -> bytes:
    return _BLOCK.pack(0, weight, 0, 0, scale, 0, out, 0, m, k, k, m, m, 0, -1, isa_index, -1, 0.0)
