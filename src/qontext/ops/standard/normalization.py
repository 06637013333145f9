"""Normalisations. Statistics of half types are computed in float32."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ...errors import ShapeError
from .attributes import choice, integer, integers, number, refusal
from .data_types import compute_dtype, held_as
from .declare import Attributes, Context, Inputs, Result
from .operands import axis_of, meeting_device, needed, optional, together

_STASH = (1, 10, 11, 16)


def _stash(op: str, attributes: Attributes, x: torch.Tensor) -> tuple[torch.dtype, torch.dtype]:
    """The dtype of the saved statistics and the one to compute in, which is never narrower than float32."""
    saved = held_as(op, "stash_type", choice(op, attributes, "stash_type", _STASH, 1))
    return saved, torch.promote_types(compute_dtype(saved), compute_dtype(x.dtype))


def _by_channel(parameter: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """`[C]` placed at axis 1 of `x`."""
    return parameter.reshape(1, -1, *[1] * (x.ndim - 2))


def layer_norm(inputs: Inputs, attributes: Attributes, context: Context) -> Result:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the axes from `axis` on."""
    op = "LayerNormalization"
    at = meeting_device(inputs)
    x, scale, bias = needed(op, inputs, 0, at), needed(op, inputs, 1, at), optional(inputs, 2, at)
    axis = axis_of(op, integer(op, attributes, "axis", -1), x.ndim)
    epsilon = number(op, attributes, "epsilon", 1e-5)
    saved, wide = _stash(op, attributes, x)
    shape = x.shape[axis:]
    if len(context.outputs) == 1 and scale.shape == shape and (bias is None or bias.shape == shape):
        # torch computes half types in float32 inside, and the statistics are not asked for.
        return F.layer_norm(x, shape, scale, bias, epsilon)
    axes = list(range(axis, x.ndim))
    variance, mean = torch.var_mean(x.to(wide), axes, correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + epsilon)
    y = ((x.to(wide) - mean) * inverse).to(x.dtype) * scale
    return context.results(y if bias is None else y + bias, mean.to(saved), inverse.to(saved))


def rms_norm(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """x / sqrt(mean(x * x) + epsilon) * scale over the axes from `axis` on, in the type of the scale."""
    op = "RMSNormalization"
    x, scale = together(needed(op, inputs, 0), needed(op, inputs, 1))
    axis = axis_of(op, integer(op, attributes, "axis", -1), x.ndim)
    _, dtype = _stash(op, attributes, x)
    wide = x.to(dtype)
    mean = wide.square().mean(list(range(axis, x.ndim)), keepdim=True)
    normal = wide * torch.rsqrt(mean + number(op, attributes, "epsilon", 1e-5))
    return normal.to(x.dtype).to(scale.dtype) * scale


def group_norm(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Normalised over groups of channels; scale and bias are per group before opset 21, per channel from then on."""
    op = "GroupNormalization"
    x, scale, bias = together(*(needed(op, inputs, i) for i in range(3)))
    groups = integer(op, attributes, "num_groups")
    if groups < 1 or x.shape[1] % groups:
        raise refusal(op, "num_groups", groups, f"a divisor of the {x.shape[1]} channels")
    _, dtype = _stash(op, attributes, x)
    normal = F.group_norm(x.to(dtype), groups, eps=number(op, attributes, "epsilon", 1e-5)).to(x.dtype)
    if context.opset < 21:
        scale, bias = (p.repeat_interleave(x.shape[1] // groups) for p in (scale, bias))
    if scale.shape != x.shape[1:2] or bias.shape != x.shape[1:2]:
        wanted = groups if context.opset < 21 else x.shape[1]
        raise ShapeError(
            f"{op}: scale is {list(inputs[1].shape) if inputs[1] is not None else None}; "
            f"allowed are {wanted} values at opset {context.opset}"
        )
    return normal * _by_channel(scale, x) + _by_channel(bias, x)


def instance_norm(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Normalised over the positions of each channel of each instance."""
    op = "InstanceNormalization"
    x, scale, bias = together(*(needed(op, inputs, i) for i in range(3)))
    wide = x.to(compute_dtype(x.dtype))
    variance, mean = torch.var_mean(wide, list(range(2, x.ndim)), correction=0, keepdim=True)
    normal = (wide - mean) * torch.rsqrt(variance + number(op, attributes, "epsilon", 1e-5))
    return (normal * _by_channel(scale, x) + _by_channel(bias, x)).to(x.dtype)


def batch_norm(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """Normalised with the statistics that were learnt; training is refused."""
    op = "BatchNormalization"
    if integer(op, attributes, "training_mode", 0) != 0:
        raise refusal(op, "training_mode", attributes["training_mode"], "0 (inference)")
    x, scale, bias, mean, variance = together(*(needed(op, inputs, i) for i in range(5)))
    wide = compute_dtype(x.dtype)
    factor = scale.to(wide) * torch.rsqrt(variance.to(wide) + number(op, attributes, "epsilon", 1e-5))
    shift = bias.to(wide) - mean.to(wide) * factor
    return (x.to(wide) * _by_channel(factor, x) + _by_channel(shift, x)).to(x.dtype)


def mean_variance_norm(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """(x - mean) / standard deviation over `axes`."""
    op = "MeanVarianceNormalization"
    x = needed(op, inputs, 0)
    given: Sequence[int] | None = integers(op, attributes, "axes")
    axes = [axis_of(op, a, x.ndim) for a in ((0, 2, 3) if given is None else given)]
    wide = x.to(compute_dtype(x.dtype))
    variance, mean = torch.var_mean(wide, axes, correction=0, keepdim=True)
    # The function body adds this constant to the deviation.
    return ((wide - mean) / (torch.sqrt(variance) + 1e-9)).to(x.dtype)


def lp_norm(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """x over its 1- or 2-norm along `axis`, 0 where the norm is 0."""
    op = "LpNormalization"
    x = needed(op, inputs, 0)
    axis = axis_of(op, integer(op, attributes, "axis", -1), x.ndim)
    order = choice(op, attributes, "p", (1, 2), 2)
    wide = x.to(compute_dtype(x.dtype))
    norm = torch.linalg.vector_norm(wide, order, axis, keepdim=True)
    return torch.where(norm == 0, 0, wide / norm).to(x.dtype)
