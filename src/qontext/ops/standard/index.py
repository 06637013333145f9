"""Operators that pick elements by index; negative indices count from the end."""

import torch

from .attributes import integer, refusal
from .declare import Attributes, Context, Inputs
from .operands import axis_of, needed, together


def from_front(indices: torch.Tensor, size: int) -> torch.Tensor:
    """Indices counted from the front, int64. Those out of range stay so: torch reports them."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


def gather(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Slices of the data along `axis`: the shape of the indices takes the place of that axis."""
    data, indices = together(needed("Gather", inputs, 0), needed("Gather", inputs, 1))
    axis = axis_of("Gather", integer("Gather", attributes, "axis", 0), data.ndim)
    picked = data.index_select(axis, from_front(indices, data.shape[axis]).reshape(-1))
    return picked.reshape(data.shape[:axis] + indices.shape + data.shape[axis + 1 :])


def gather_elements(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """For each position of the indices the element that differs from it in `axis` only."""
    data, indices = together(needed("GatherElements", inputs, 0), needed("GatherElements", inputs, 1))
    axis = axis_of("GatherElements", integer("GatherElements", attributes, "axis", 0), data.ndim)
    return torch.gather(data, axis, from_front(indices, data.shape[axis]))


def coordinates(indices: torch.Tensor, sizes: torch.Size) -> tuple[torch.Tensor, ...]:
    """The last axis of the indices as one index tensor for each of the axes that it addresses."""
    return tuple(from_front(part, size) for part, size in zip(indices.unbind(-1), sizes, strict=False))


def gather_nd(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Slices of the data addressed by the last axis of the indices, after `batch_dims` shared leading axes."""
    data, indices = together(needed("GatherND", inputs, 0), needed("GatherND", inputs, 1))
    shared = integer("GatherND", attributes, "batch_dims", 0)
    if not 0 <= shared < min(data.ndim, indices.ndim):
        raise refusal("GatherND", "batch_dims", shared, f"0 to {min(data.ndim, indices.ndim) - 1}, below both ranks")
    here = coordinates(indices, data.shape[shared:])
    batch = [
        torch.arange(data.shape[a], device=data.device).reshape([-1 if b == a else 1 for b in range(indices.ndim - 1)])
        for a in range(shared)
    ]
    return data[(*batch, *here)]
