"""Linear quantisation: x = (q - zero_point) * scale, per tensor, per axis or per block of an axis."""

import torch

from ...errors import ShapeError
from .attributes import flag, integer, refusal
from .cast import to_float8
from .data_types import FLOAT8, NARROW, data_type, held_as
from .declare import Attributes, Context, Inputs
from .operands import axis_of, meeting_device, needed, optional


def spread(op: str, parameter: torch.Tensor, x: torch.Tensor, attributes: Attributes) -> torch.Tensor:
    """A scale or zero point in a shape that broadcasts to `x`."""
    if parameter.numel() == 1 and parameter.ndim <= 1:
        return parameter.reshape(())
    axis = axis_of(op, integer(op, attributes, "axis", 1), x.ndim)
    block = integer(op, attributes, "block_size", 0)
    if parameter.ndim == 1 and not block:
        if parameter.shape[0] != x.shape[axis]:
            raise ShapeError(
                f"{op}: {parameter.shape[0]} scales for axis {axis} of the input {list(x.shape)}; "
                f"allowed are {x.shape[axis]}"
            )
        return parameter.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    if block < 1:
        raise refusal(op, "block_size", block, f"a block size for scales of shape {list(parameter.shape)}")
    blocks = -(-x.shape[axis] // block)
    wanted = [blocks if a == axis else s for a, s in enumerate(x.shape)]
    if list(parameter.shape) != wanted:
        raise ShapeError(
            f"{op}: scales of shape {list(parameter.shape)} for the input {list(x.shape)} in blocks of {block} "
            f"along axis {axis}; allowed is {wanted}"
        )
    return parameter.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])


def saturated(values: torch.Tensor, dtype: torch.dtype, limits: tuple[int, int] | None = None) -> torch.Tensor:
    """Whole numbers in floats, held to the range of an integer type and converted to it."""
    info = torch.iinfo(dtype)
    low, high = limits or (info.min, info.max)
    return values.clamp(low, high).to(torch.int32).to(dtype)


def quantize_linear(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """round(x / scale) + zero_point, held to the range of the target type."""
    op = "QuantizeLinear"
    at = meeting_device(inputs)
    x, scale, zero = needed(op, inputs, 0, at), needed(op, inputs, 1, at), optional(inputs, 2, at)
    code = integer(op, attributes, "output_dtype", 0)
    limits = None
    target = torch.uint8 if zero is None else zero.dtype
    if code:
        target = held_as(op, "output_dtype", code)
        kind = data_type(op, "output_dtype", code)
        limits = NARROW[kind][1:] if kind in NARROW else None
    precision = integer(op, attributes, "precision", 0)
    work = held_as(op, "precision", precision) if precision else scale.dtype
    if not work.is_floating_point:
        work = torch.float32
    y = (x.to(work) / spread(op, scale.to(work), x, attributes)).to(torch.float32)
    offset = None if zero is None else spread(op, zero, x, attributes).to(torch.float32)
    if target in FLOAT8:
        y = y if offset is None else y + offset
        return to_float8(y, target, flag(op, attributes, "saturate", True))
    y = torch.round(y)
    return saturated(y if offset is None else y + offset, target, limits)


def dequantize_linear(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """(x - zero_point) * scale in the type of the scale, or in `output_dtype`."""
    op = "DequantizeLinear"
    at = meeting_device(inputs)
    x, scale, zero = needed(op, inputs, 0, at), needed(op, inputs, 1, at), optional(inputs, 2, at)
    code = integer(op, attributes, "output_dtype", 0)
    target = held_as(op, "output_dtype", code) if code else scale.dtype
    exact = torch.float32 if x.is_floating_point() else torch.int32
    y = x.to(exact)
    if zero is not None:
        y = y - spread(op, zero, x, attributes).to(exact)
    return y.to(target) * spread(op, scale, x, attributes).to(target)


def dynamic_quantize_linear(
    inputs: Inputs, attributes: Attributes, context: Context
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """uint8 values, scale and zero point from the range of x, which is made to hold 0."""
    x = needed("DynamicQuantizeLinear", inputs, 0)
    high, low = x.amax().clamp_min(0), x.amin().clamp_max(0)
    scale = (high - low) / 255
    # A tensor of zeros has no range: it quantises to zeros with any scale.
    divisor = torch.where(scale == 0, 1, scale)
    zero = torch.round(-low / divisor).clamp(0, 255)
    return saturated(torch.round(x / divisor) + zero, torch.uint8), scale, zero.to(torch.uint8)
