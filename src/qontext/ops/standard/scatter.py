"""Operators that write updates into a copy of a tensor: ScatterElements, ScatterND, TensorScatter."""

import math

import torch

from .attributes import integer, refusal, word
from .declare import Attributes, Context, Inputs, StandardOp
from .index import coordinates, from_front
from .operands import axis_of, meeting_device, needed, optional, together

_REDUCTIONS = {"none": None, "add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _write(
    data: torch.Tensor, axis: int, indices: torch.Tensor, updates: torch.Tensor, how: str | None
) -> torch.Tensor:
    if how is None:
        return data.scatter(axis, indices, updates)
    return data.scatter_reduce(axis, indices, updates, how, include_self=True)


def scatter_elements(name: str, since: int) -> StandardOp:
    """Each update goes to the position that differs from its own in `axis` only. (Scatter is its older name.)"""

    def run(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
        data, indices, updates = together(*(needed(name, inputs, i) for i in range(3)))
        axis = axis_of(name, integer(name, attributes, "axis", 0), data.ndim)
        how = _REDUCTIONS[word(name, attributes, "reduction", tuple(_REDUCTIONS), "none")]
        return _write(data, axis, from_front(indices, data.shape[axis]), updates, how)

    return StandardOp(name, since, run)


def scatter_nd(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Each slice of the updates goes where the last axis of the indices says."""
    op = "ScatterND"
    data, indices, updates = together(*(needed(op, inputs, i) for i in range(3)))
    how = _REDUCTIONS[word(op, attributes, "reduction", tuple(_REDUCTIONS), "none")]
    depth = indices.shape[-1]
    here = coordinates(indices, data.shape)
    if how is None:
        return data.index_put(here, updates) if depth else updates.reshape(data.shape)
    # One row for each slice that can be addressed, so that the reduction works along one axis.
    rows = data.reshape(math.prod(data.shape[:depth]), -1)
    row = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=data.device)
    for index, size in zip(here, data.shape[:depth], strict=True):
        row = row * size + index
    target = row.reshape(-1, 1).expand(-1, rows.shape[1])
    return _write(rows, 0, target, updates.reshape(-1, rows.shape[1]), how).reshape(data.shape)


def tensor_scatter(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The update written into a copy of the cache along `axis`, from a position of its own for each sequence."""
    op = "TensorScatter"
    at = meeting_device(inputs)
    cache, update, start = needed(op, inputs, 0, at), needed(op, inputs, 1, at), optional(inputs, 2, at)
    axis = axis_of(op, integer(op, attributes, "axis", -2), cache.ndim)
    if axis == 0:
        raise refusal(op, "axis", attributes.get("axis", -2), "any axis but 0, the batch")
    mode = word(op, attributes, "mode", ("linear", "circular"), "linear")
    positions = torch.arange(update.shape[axis], device=cache.device).unsqueeze(0)
    if start is not None:
        positions = positions + start.reshape(-1, 1)
    if mode == "circular":
        positions = positions.remainder(cache.shape[axis])
    shape = [-1 if a == axis else positions.shape[0] if a == 0 else 1 for a in range(cache.ndim)]
    return cache.scatter(axis, positions.reshape(shape).expand(update.shape), update)
