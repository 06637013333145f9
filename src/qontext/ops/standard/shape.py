"""Operators that read or change a shape and leave the elements where they are."""

import math

import torch

from ...errors import ShapeError
from .attributes import flag, integer, integers
from .declare import Attributes, Context, Inputs
from .operands import axes_operand, axis_of, host_list, needed


def shape(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The sizes of the axes `start` to `end`: a real int64 tensor on the CPU, wherever the input lies."""
    x = needed("Shape", inputs, 0)
    start = integer("Shape", attributes, "start", 0)
    end = integer("Shape", attributes, "end", x.ndim)
    low, high = (max(0, min(x.ndim, a + x.ndim if a < 0 else a)) for a in (start, end))
    return torch.tensor(list(x.shape[low:high]), dtype=torch.int64)


def size(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The number of elements: a real int64 scalar on the CPU."""
    return torch.tensor(needed("Size", inputs, 0).numel(), dtype=torch.int64)


def reshape(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The same elements in another shape; 0 copies a size of the input unless `allowzero`, -1 is inferred."""
    x = needed("Reshape", inputs, 0)
    wanted = host_list("Reshape", "shape", needed("Reshape", inputs, 1))
    sizes = list(wanted)
    if not flag("Reshape", attributes, "allowzero"):
        if any(s == 0 and i >= x.ndim for i, s in enumerate(sizes)):
            raise ShapeError(f"Reshape: shape {wanted} copies a size that the input {list(x.shape)} does not have")
        sizes = [x.shape[i] if s == 0 else s for i, s in enumerate(sizes)]
    known = math.prod(s for s in sizes if s != -1)
    open_sizes = sizes.count(-1)
    if open_sizes == 1 and known:
        fits = x.numel() % known == 0
    else:
        # torch cannot infer a size beside a zero; ONNX leaves it undefined as well.
        fits = open_sizes == 0 and known == x.numel()
    if not fits or any(s < -1 for s in sizes):
        raise ShapeError(
            f"Reshape: shape {wanted} was asked of the input {list(x.shape)} with {x.numel()} elements; "
            "allowed is a shape with as many elements and at most one -1"
        )
    return x.reshape(sizes)


def flatten(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Two axes: those before `axis` and those from it on."""
    x = needed("Flatten", inputs, 0)
    axis = integer("Flatten", attributes, "axis", 1)
    axis = axis if axis == x.ndim else axis_of("Flatten", axis, x.ndim)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def transpose(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The axes in the order `perm`, by default reversed."""
    x = needed("Transpose", inputs, 0)
    order = integers("Transpose", attributes, "perm")
    if order is None:
        order = list(range(x.ndim))[::-1]
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"Transpose: perm is {order}; allowed is an order of the {x.ndim} axes of the input")
    return x.permute(order)


def squeeze(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Without the given axes of size 1, by default without all of them."""
    x = needed("Squeeze", inputs, 0)
    axes = axes_operand("Squeeze", inputs, attributes, context, 1, 13)
    if axes is None:
        return x.squeeze()
    gone = {axis_of("Squeeze", a, x.ndim) for a in axes}
    if any(x.shape[a] != 1 for a in gone):
        raise ShapeError(f"Squeeze: axes are {axes}; allowed are axes of size 1 of the input {list(x.shape)}")
    return x.reshape([s for a, s in enumerate(x.shape) if a not in gone])


def unsqueeze(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """With axes of size 1 at the given positions of the result."""
    x = needed("Unsqueeze", inputs, 0)
    axes = axes_operand("Unsqueeze", inputs, attributes, context, 1, 13)
    if axes is None:
        raise ShapeError("Unsqueeze: its axes are missing; allowed is a list of positions in the result")
    rank = x.ndim + len(axes)
    new = {axis_of("Unsqueeze", a, rank) for a in axes}
    if len(new) != len(axes):
        raise ShapeError(f"Unsqueeze: axes are {axes}; allowed is each position once")
    sizes = iter(x.shape)
    return x.reshape([1 if a in new else next(sizes) for a in range(rank)])


def expand(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Broadcast against a shape, both ways; a view."""
    x = needed("Expand", inputs, 0)
    wanted = host_list("Expand", "shape", needed("Expand", inputs, 1))
    sizes = [1] * (x.ndim - len(wanted)) + wanted
    here = [1] * (len(sizes) - x.ndim) + list(x.shape)
    if any(a != b and a != 1 and b != 1 for a, b in zip(here, sizes, strict=True)):
        raise ShapeError(f"Expand: shape {wanted} was asked of the input {list(x.shape)}; they do not broadcast")
    return x.expand([b if a == 1 else a for a, b in zip(here, sizes, strict=True)])


def tile(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Repeated along each axis."""
    x = needed("Tile", inputs, 0)
    repeats = host_list("Tile", "repeats", needed("Tile", inputs, 1))
    if len(repeats) != x.ndim:
        raise ShapeError(f"Tile: repeats are {repeats}; allowed is one for each of the {x.ndim} axes of the input")
    return x.repeat(repeats)
