"""RotaryEmbedding: pairs of features turned by an angle that depends on the position."""

import torch

from ...errors import ShapeError
from .attributes import flag, integer, refusal
from .data_types import compute_dtype
from .declare import Attributes, Context, Inputs
from .index import from_front
from .operands import meeting_device, needed, optional

_OP = "RotaryEmbedding"


def rotary_embedding(inputs: Inputs, attributes: Attributes, context: Context) -> torch.Tensor:
    """x `[B, N, S, D]` or `[B, S, N*D]`, turned in its first `rotary_embedding_dim` features (0: in all of them).

    The caches are `[P, R/2]` with position ids `[B, S]`, else `[B, S, R/2]`. A pair is (i, i + R/2), or (2i, 2i+1)
    when `interleaved`.
    """
    at = meeting_device(inputs)
    x, cos, sin = (needed(_OP, inputs, i, at) for i in range(3))
    positions = optional(inputs, 3, at)
    shape = x.shape
    if x.ndim == 3:
        heads = integer(_OP, attributes, "num_heads")
        if heads < 1 or x.shape[2] % heads:
            raise refusal(_OP, "num_heads", heads, f"a divisor of the hidden size {x.shape[2]}")
        x = x.unflatten(2, (heads, -1))
    else:
        x = x.transpose(1, 2)
    turned = integer(_OP, attributes, "rotary_embedding_dim", 0) or x.shape[-1]
    if turned % 2 or turned > x.shape[-1]:
        raise refusal(_OP, "rotary_embedding_dim", turned, f"an even number up to the head size {x.shape[-1]}")
    if positions is not None:
        positions = from_front(positions, cos.shape[0])
        cos, sin = (c.index_select(0, positions.reshape(-1)).reshape(*positions.shape, -1) for c in (cos, sin))
    if cos.shape[-1] * 2 != turned or sin.shape != cos.shape:
        raise ShapeError(
            f"{_OP}: the caches give {list(cos.shape)} and {list(sin.shape)}; allowed is a last axis of {turned // 2}, "
            "half of the features that turn"
        )
    wide = compute_dtype(x.dtype)
    cos, sin = cos.unsqueeze(2).to(wide), sin.unsqueeze(2).to(wide)
    part, rest = x[..., :turned].to(wide), x[..., turned:]
    interleaved = flag(_OP, attributes, "interleaved")
    first, second = (part[..., 0::2], part[..., 1::2]) if interleaved else part.chunk(2, -1)
    a, b = cos * first - sin * second, sin * first + cos * second
    result = torch.stack((a, b), -1).flatten(-2) if interleaved else torch.cat((a, b), -1)
    result = result.to(x.dtype)
    if rest.shape[-1]:
        result = torch.cat((result, rest), -1)
    return result.reshape(shape) if len(shape) == 3 else result.transpose(1, 2)
