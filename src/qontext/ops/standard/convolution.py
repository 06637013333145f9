"""Convolution and pooling over all positions, for the models that mix them with attention."""

import torch
import torch.nn.functional as F

from ...errors import ShapeError
from .attributes import integer, integers, word
from .declare import Attributes, Context, Inputs
from .operands import meeting_device, needed, optional

_AUTO_PAD = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


def _pads(attributes: Attributes, sizes: list[int], window: list[int], strides: list[int]) -> list[int]:
    """The elements added before each axis, then after each, as ONNX's `pads` lists them."""
    auto = word("Conv", attributes, "auto_pad", _AUTO_PAD, "NOTSET")
    if auto in ("NOTSET", "VALID"):
        given = integers("Conv", attributes, "pads") if auto == "NOTSET" else None
        return [0] * (2 * len(sizes)) if given is None else given
    total = [max(0, (-(-s // t) - 1) * t + w - s) for s, w, t in zip(sizes, window, strides, strict=True)]
    less = [p // 2 for p in total]
    more = [p - q for p, q in zip(total, less, strict=True)]
    return less + more if auto == "SAME_UPPER" else more + less


def conv(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """x `[B, C, ...]` with weights `[M, C/group, ...]` and bias `[M]`, over one to three positions axes."""
    at = meeting_device(inputs)
    x, weight, bias = needed("Conv", inputs, 0, at), needed("Conv", inputs, 1, at), optional(inputs, 2, at)
    rank = x.ndim - 2
    if not 1 <= rank <= 3 or weight.ndim != x.ndim:
        raise ShapeError(
            f"Conv: the input is {list(x.shape)}, the weights {list(weight.shape)}; allowed are equal ranks of 3 to 5"
        )
    strides = integers("Conv", attributes, "strides") or [1] * rank
    dilations = integers("Conv", attributes, "dilations") or [1] * rank
    groups = integer("Conv", attributes, "group", 1)
    window = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
    pads = _pads(attributes, list(x.shape[2:]), window, strides)
    before, after = pads[:rank], pads[rank:]
    if before != after:
        # torch pads both ends alike; F.pad counts axes from the last.
        x = F.pad(x, [p for axis in reversed(range(rank)) for p in (before[axis], after[axis])])
        before = [0] * rank
    function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return function(x, weight, bias, strides, before, dilations, groups)


def global_average_pool(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The mean over all positions, kept as axes of size 1."""
    x = needed("GlobalAveragePool", inputs, 0)
    return x.mean(list(range(2, x.ndim)), keepdim=True)


def global_max_pool(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """The largest over all positions, kept as axes of size 1."""
    x = needed("GlobalMaxPool", inputs, 0)
    return x.amax(list(range(2, x.ndim)), keepdim=True)
