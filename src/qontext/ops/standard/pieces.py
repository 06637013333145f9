"""Operators that take tensors apart and put them together: Slice, Split, Concat, Pad, Trilu and depth-space moves."""

import torch

from ...errors import ShapeError
from .attributes import flag, integer, integers, refusal, word
from .declare import Attributes, Context, Inputs
from .operands import all_needed, axis_of, host_int, host_list, meeting_device, needed, optional, together


def slice_(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """x[starts:ends:steps] along `axes`; bounds are held to the tensor, steps may be negative."""
    x = needed("Slice", inputs, 0)
    starts = host_list("Slice", "starts", needed("Slice", inputs, 1))
    ends = host_list("Slice", "ends", needed("Slice", inputs, 2))
    given_axes, given_steps = optional(inputs, 3), optional(inputs, 4)
    axes = list(range(len(starts))) if given_axes is None else host_list("Slice", "axes", given_axes)
    steps = [1] * len(starts) if given_steps is None else host_list("Slice", "steps", given_steps)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ShapeError(
            f"Slice: starts are {starts}, ends {ends}, axes {axes}, steps {steps}; "
            "allowed are lists of one length and steps other than 0"
        )
    for start, end, at, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of("Slice", at, x.ndim)
        low, high, stride = slice(start, end, step).indices(x.shape[axis])
        count = len(range(low, high, stride))
        if count == x.shape[axis] and stride == 1:
            continue
        if stride == 1 or count == 0:
            x = x.narrow(axis, low if count else 0, count)
        elif stride > 0:
            x = x[(slice(None),) * axis + (slice(low, high, stride),)]
        else:
            # torch has no negative strides: count from the other end.
            x = x.index_select(axis, torch.arange(low, high, stride, device=x.device))
    return x


def split(inputs: Inputs, attributes: Attributes, context: Context) -> tuple[torch.Tensor, ...]:
    """Consecutive parts along `axis`, of given sizes or equal ones (the last may be smaller)."""
    x = needed("Split", inputs, 0)
    axis = axis_of("Split", integer("Split", attributes, "axis", 0), x.ndim)
    operand = optional(inputs, 1)
    sizes = integers("Split", attributes, "split") if operand is None else host_list("Split", "split", operand)
    length, parts = x.shape[axis], len(context.outputs)
    if sizes is None:
        if integer("Split", attributes, "num_outputs", parts) != parts:
            raise refusal("Split", "num_outputs", attributes["num_outputs"], f"{parts}, the number of outputs")
        chunk = -(-length // parts)
        sizes = [max(0, min(chunk, length - i * chunk)) for i in range(parts)]
    if sum(sizes) != length or len(sizes) != parts or min(sizes) < 0:
        raise ShapeError(
            f"Split: sizes {sizes} were asked of axis {axis} with {length} elements for {parts} outputs; "
            "allowed is one size for each output, adding up to the axis"
        )
    return tuple(torch.split(x, sizes, axis))


def concat(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """One after the other along `axis`."""
    tensors = together(*all_needed("Concat", inputs))
    axis = axis_of("Concat", integer("Concat", attributes, "axis"), tensors[0].ndim)
    shapes = {(t.shape[:axis], t.shape[axis + 1 :], t.ndim) for t in tensors}
    if len(shapes) > 1:
        found = ", ".join(str(list(t.shape)) for t in tensors)
        raise ShapeError(f"Concat: shapes are {found}; allowed are shapes that differ in axis {axis} only")
    return torch.cat(tensors, axis)


def _source(mode: str, before: int, after: int, size: int) -> torch.Tensor:
    """For each position of a padded axis the position in the input."""
    position = torch.arange(-before, size + after)
    if mode == "edge":
        return position.clamp(0, size - 1)
    if mode == "wrap":
        return position.remainder(size)
    period = max(1, 2 * (size - 1))
    folded = position.remainder(period)
    return torch.where(folded < size, folded, period - folded)


def pad(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Elements added (or, for negative pads, taken away) before and after each axis."""
    at = meeting_device(inputs)
    x, value = needed("Pad", inputs, 0, at), optional(inputs, 2, at)
    mode = word("Pad", attributes, "mode", ("constant", "reflect", "edge", "wrap"), "constant")
    pads = host_list("Pad", "pads", needed("Pad", inputs, 1))
    operand = optional(inputs, 3)
    axes = list(range(x.ndim)) if operand is None else host_list("Pad", "axes", operand)
    if len(pads) != 2 * len(axes):
        raise ShapeError(f"Pad: pads are {pads}; allowed are two for each of the axes {axes}")
    for i, given in enumerate(axes):
        axis, before, after = axis_of("Pad", given, x.ndim), pads[i], pads[i + len(axes)]
        if before < 0 or after < 0:
            low, high = max(0, -before), x.shape[axis] - max(0, -after)
            if high < low:
                raise ShapeError(f"Pad: pads {before} and {after} take more than axis {axis} has, {x.shape[axis]}")
            x = x.narrow(axis, low, high - low)
            before, after = max(0, before), max(0, after)
        if before == after == 0:
            continue
        if mode != "constant":
            if x.shape[axis] == 0:
                raise ShapeError(f"Pad: mode '{mode}' was asked of axis {axis} without elements")
            x = x.index_select(axis, _source(mode, before, after, x.shape[axis]).to(x.device))
            continue
        edges = []
        for length in (before, after):
            edge = x.new_zeros([length if a == axis else s for a, s in enumerate(x.shape)])
            edges.append(edge if value is None else edge + value.reshape(()).to(x.dtype))
        x = torch.cat([edges[0].to(x.dtype), x, edges[1].to(x.dtype)], axis)
    return x


def trilu(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The upper or lower triangle of the last two axes from diagonal k on, zeros elsewhere."""
    x = needed("Trilu", inputs, 0)
    operand = optional(inputs, 1)
    k = 0 if operand is None else host_int("Trilu", "k", operand)
    # No matrix has diagonals beyond its sizes; k may be any int64.
    k = max(-x.shape[-2] - 1, min(x.shape[-1] + 1, k))
    return torch.triu(x, k) if flag("Trilu", attributes, "upper", True) else torch.tril(x, k)


def depth_to_space(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Blocks of channels `[B, C*b*b, H, W]` laid out as squares `[B, C, H*b, W*b]`."""
    x = needed("DepthToSpace", inputs, 0)
    b = integer("DepthToSpace", attributes, "blocksize")
    mode = word("DepthToSpace", attributes, "mode", ("DCR", "CRD"), "DCR")
    n, c, h, w = x.shape
    if mode == "DCR":
        return x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, -1, h * b, w * b)
    return x.reshape(n, c // (b * b), b, b, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, -1, h * b, w * b)


def space_to_depth(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Squares `[B, C, H*b, W*b]` laid out as blocks of channels `[B, C*b*b, H, W]`."""
    x = needed("SpaceToDepth", inputs, 0)
    b = integer("SpaceToDepth", attributes, "blocksize")
    mode = word("SpaceToDepth", attributes, "mode", ("DCR", "CRD"), "DCR")
    n, c, h, w = x.shape
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return x.reshape(n, c, h // b, b, w // b, b).permute(order).reshape(n, -1, h // b, w // b)
