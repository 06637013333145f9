"""Operators that make tensors: Constant, ConstantOfShape, Range, EyeLike, OneHot."""

import math

import torch

from ...errors import ShapeError, UnsupportedOperatorError
from .attributes import integer, tensor
from .data_types import held_as
from .declare import Attributes, Context, Inputs
from .operands import axis_of, host_int, host_list, needed, together

_PLAIN = {
    "value_float": torch.float32,
    "value_floats": torch.float32,
    "value_int": torch.int64,
    "value_ints": torch.int64,
}


def constant(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The value in the one attribute that is there."""
    value = tensor("Constant", attributes, "value")
    if value is not None:
        return value
    for name, dtype in _PLAIN.items():
        if name in attributes:
            return torch.tensor(attributes[name], dtype=dtype)
    raise UnsupportedOperatorError(
        f"Constant: attributes are {sorted(attributes)}; allowed is one of value, {', '.join(_PLAIN)}; "
        "strings and sparse tensors are not held"
    )


def constant_of_shape(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """One value, by default the float 0, in every element of a shape; a real tensor on the CPU."""
    sizes = host_list("ConstantOfShape", "shape", needed("ConstantOfShape", inputs, 0))
    if any(s < 0 for s in sizes):
        raise ShapeError(f"ConstantOfShape: shape {sizes} was asked; allowed are sizes from 0 on")
    value = tensor("ConstantOfShape", attributes, "value")
    if value is None:
        return torch.zeros(sizes)
    return value.reshape(()).expand(sizes).clone(memory_format=torch.contiguous_format)


def range_(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """start, start + delta, ... below (or above) limit; a real tensor on the CPU."""
    operands = [needed("Range", inputs, i) for i in range(3)]
    if any(x.is_meta for x in operands):
        raise NotImplementedError("Range: its bounds are not known while shapes are inferred")
    start, limit, delta = (x.reshape(()).item() for x in operands)
    if delta == 0:
        raise ShapeError(f"Range: delta is 0 from {start} to {limit}; allowed is any other step")
    count = max(0, math.ceil((limit - start) / delta))
    dtype = operands[0].dtype
    if not dtype.is_floating_point:
        return torch.arange(count, dtype=torch.int64).mul(delta).add(start).to(dtype)
    return torch.arange(count, dtype=torch.float64).mul(delta).add(start).to(dtype)


def eye_like(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Ones on diagonal k of a matrix of the input's shape, zeros elsewhere."""
    x = needed("EyeLike", inputs, 0)
    k = integer("EyeLike", attributes, "k", 0)
    dtype = held_as("EyeLike", "dtype", attributes["dtype"]) if "dtype" in attributes else x.dtype
    if x.ndim != 2:
        raise ShapeError(f"EyeLike: the input has shape {list(x.shape)}; allowed is a matrix")
    rows = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    return (rows + k == torch.arange(x.shape[1], device=x.device)).to(dtype)


def one_hot(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """A new axis of size `depth` that holds the on-value at the index and the off-value elsewhere."""
    indices, values = together(needed("OneHot", inputs, 0), needed("OneHot", inputs, 2))
    depth = host_int("OneHot", "depth", needed("OneHot", inputs, 1))
    axis = axis_of("OneHot", integer("OneHot", attributes, "axis", -1), indices.ndim + 1)
    indices = indices.to(torch.int64)
    indices = torch.where(indices < 0, indices + depth, indices).unsqueeze(axis)
    places = torch.arange(depth, device=indices.device)
    places = places.reshape([-1 if a == axis else 1 for a in range(indices.ndim)])
    off, on = values.reshape(2).unbind()
    return torch.where(indices == places, on, off)
