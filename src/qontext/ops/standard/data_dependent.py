"""Operators whose output shapes depend on values: NonZero, Compress, Unique."""

import torch

from .attributes import flag, integer
from .declare import Attributes, Context, Inputs, Result
from .operands import axis_of, needed


def _values(op: str, x: torch.Tensor) -> torch.Tensor:
    """x, when its values are there. Raises NotImplementedError on `meta`."""
    if x.is_meta:
        raise NotImplementedError(f"{op}: the shape of its output depends on values, which are not known here")
    return x


def non_zero(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The indices of elements other than 0, `[rank, count]` int64, in row-major order."""
    x = _values("NonZero", needed("NonZero", inputs, 0))
    if x.ndim == 0:
        # A scalar has one element and no axes.
        return torch.zeros((0, int(x != 0)), dtype=torch.int64, device=x.device)
    return torch.nonzero(x).t()


def compress(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The slices along `axis` where the condition holds; without `axis`, of the flattened input."""
    x = _values("Compress", needed("Compress", inputs, 0))
    condition = _values("Compress", needed("Compress", inputs, 1))
    chosen = torch.nonzero(condition).reshape(-1).to(x.device)
    if "axis" not in attributes:
        return x.reshape(-1).index_select(0, chosen)
    return x.index_select(axis_of("Compress", integer("Compress", attributes, "axis"), x.ndim), chosen)


def unique(inputs: Inputs, attributes: Attributes, context: Context) -> Result:
    """The different elements (or slices along `axis`), where each stands first, which one each is, how often."""
    x = _values("Unique", needed("Unique", inputs, 0))
    axis = 0
    if "axis" in attributes:
        axis = axis_of("Unique", integer("Unique", attributes, "axis"), x.ndim)
    else:
        x = x.reshape(-1)
    _, inverse, counts = torch.unique(x, sorted=True, return_inverse=True, return_counts=True, dim=axis)
    places = torch.arange(x.shape[axis], device=x.device)
    first = torch.full_like(counts, x.shape[axis]).scatter_reduce(0, inverse, places, "amin")
    if not flag("Unique", attributes, "sorted", True):
        order = torch.argsort(first)
        rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=x.device))
        first, inverse, counts = first[order], rank[inverse], counts[order]
    return context.results(x.index_select(axis, first), first, inverse, counts)
