"""Conversions between data types: Cast, CastLike, BitCast."""

import onnx_ir as ir
import torch

from ...errors import DTypeError
from .attributes import flag, integer
from .data_types import FLOAT8, NARROW, data_type, held_as
from .declare import Attributes, Context, Inputs
from .operands import needed

# Halfway between the largest value, 448, and the next step of that size; a tie goes to the even 448.
_E4M3FN_ROUNDS_BEYOND = 464


def to_float8(x: torch.Tensor, dtype: torch.dtype, saturate: bool) -> torch.Tensor:
    """x rounded to an 8-bit float; beyond its range the largest value if `saturate`, else NaN or infinity."""
    wide = x.to(torch.float32)
    if saturate:
        limit = torch.finfo(dtype).max
        wide = wide.clamp(-limit, limit)
    elif dtype == torch.float8_e4m3fn:
        # This type has no infinity, and torch may give its largest value where ONNX wants NaN.
        wide = torch.where(wide.abs() > _E4M3FN_ROUNDS_BEYOND, float("nan"), wide)
    return wide.to(dtype)


def convert(x: torch.Tensor, dtype: torch.dtype, saturate: bool = True) -> torch.Tensor:
    """x in another torch dtype, as Cast says."""
    if dtype in FLOAT8 and x.dtype != dtype:
        return to_float8(x, dtype, saturate)
    return x.to(dtype)


def narrow(x: torch.Tensor, kind: ir.DataType) -> torch.Tensor:
    """x as 2- or 4-bit integers, one to a byte: the low bits of the whole number."""
    held, low, high = NARROW[kind]
    span = high - low + 1
    return ((x.to(torch.int64) - low).remainder(span) + low).to(held)


def cast(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """x in the data type `to`."""
    x = needed("Cast", inputs, 0)
    code = integer("Cast", attributes, "to")
    kind = data_type("Cast", "to", code)
    if kind in NARROW:
        return narrow(x, kind)
    return convert(x, held_as("Cast", "to", code), flag("Cast", attributes, "saturate", True))


def cast_like(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """x in the data type of the second input."""
    x, like = needed("CastLike", inputs, 0), needed("CastLike", inputs, 1)
    return convert(x, like.dtype, flag("CastLike", attributes, "saturate", True))


def bit_cast(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The bits of x read as the data type `to`, which has the same width."""
    x = needed("BitCast", inputs, 0)
    code = integer("BitCast", attributes, "to")
    kind, dtype = data_type("BitCast", "to", code), held_as("BitCast", "to", code)
    if kind in NARROW:
        raise DTypeError(f"BitCast: the target is {kind.name}, held one value to a byte; allowed are 8 bits and more")
    if dtype.itemsize != x.dtype.itemsize:
        raise DTypeError(
            f"BitCast: the input is {x.dtype} of {x.dtype.itemsize} bytes, the target {dtype} of "
            f"{dtype.itemsize}; allowed are types of one width"
        )
    return x.contiguous().view(dtype)
