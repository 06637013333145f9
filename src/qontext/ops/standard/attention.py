"""Attention of opsets 23 to 25, with every input, output and attribute of the specification.

    Y = softmax(softcap(sqrt(s) Q @ (sqrt(s) K)^T) + bias) @ V

Queries are aligned with the end of the keys: with `offset` keys before the first query, query i stands at position
i + offset. The offset is the past length, or valid keys - query length for a cache kept outside, or 0. A query that
may attend to no key gives zeros.

Letters: B batch, S queries, Skv all keys (past and new), N query heads, Nkv key and value heads, D and Dv head sizes.
"""

import math

import torch
import torch.nn.functional as F

from ...errors import ShapeError
from .attributes import choice, flag, integer, number, refusal
from .data_types import compute_dtype, held_as
from .declare import Attributes, Context, Inputs, Result
from .operands import meeting_device, needed, optional

_OP = "Attention"


def _heads(x: torch.Tensor, attributes: Attributes, name: str) -> torch.Tensor:
    """`[B, S, N*D]` as `[B, N, S, D]`; four axes stay as they are."""
    if x.ndim == 4:
        given = integer(_OP, attributes, name, x.shape[1])
        if given != x.shape[1]:
            raise refusal(_OP, name, given, f"{x.shape[1]}, the heads of the four-dimensional input")
        return x
    if x.ndim != 3:
        raise ShapeError(f"{_OP}: an input has shape {list(x.shape)}; allowed are 3 or 4 axes")
    heads = integer(_OP, attributes, name)
    if heads < 1 or x.shape[2] % heads:
        raise refusal(_OP, name, heads, f"a divisor of the hidden size {x.shape[2]}")
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _allowed(
    sizes: tuple[int, int], attributes: Attributes, past: int, valid: torch.Tensor | None, device: torch.device
) -> torch.Tensor | None:
    """Which keys a query may see by position: `[B or 1, 1, S, Skv]` booleans, None for all."""
    queries, keys = sizes
    causal = flag(_OP, attributes, "is_causal")
    left = integer(_OP, attributes, "left_window_size", -1)
    right = integer(_OP, attributes, "right_window_size", -1)
    for name, size in (("left_window_size", left), ("right_window_size", right)):
        if size < -1:
            raise refusal(_OP, name, size, "-1 (unbounded) or a number of positions")
    j = torch.arange(keys, device=device)
    allowed = None if valid is None else j < valid.reshape(-1, 1, 1, 1)
    bounds = []
    if causal or left >= 0 or right >= 0:
        offset = past if valid is None else valid.reshape(-1, 1, 1, 1) - queries
        distance = torch.arange(queries, device=device).unsqueeze(1) + offset - j
        bounds += [distance >= 0] if causal else []
        bounds += [distance <= left] if left >= 0 else []
        bounds += [distance >= -right] if right >= 0 else []
    for bound in bounds:
        allowed = bound if allowed is None else allowed & bound
    return allowed


def _bias(
    mask: torch.Tensor | None, allowed: torch.Tensor | None, keys: int, dtype: torch.dtype
) -> torch.Tensor | None:
    """What is added to the scores: the additive mask, -inf where a key must not be seen; None for nothing."""
    if mask is not None:
        missing = keys - mask.shape[-1]
        if mask.dtype == torch.bool:
            mask = F.pad(mask, (0, missing), value=False)
            allowed = mask if allowed is None else allowed & mask
            mask = None
        else:
            mask = F.pad(mask, (0, missing), value=float("-inf"))
    if allowed is None:
        return mask
    zero = torch.zeros((), dtype=dtype, device=allowed.device)
    return torch.where(allowed, zero if mask is None else mask, float("-inf"))


def attention(inputs: Inputs, attributes: Attributes, context: Context) -> Result:
    """Gives Y, present key, present value and the scores in the mode asked for.

    Q `[B, N, S, D]` or `[B, S, N*D]`, K and V likewise with Nkv heads, mask broadcast to `[B, N, S, Skv]` (a shorter
    last axis is masked), past key and value `[B, Nkv, past, D]`, valid keys `[B]`.
    """
    at = meeting_device(inputs)
    q, k, v = (needed(_OP, inputs, i, at) for i in range(3))
    mask, past_k, past_v, valid = (optional(inputs, i, at) for i in range(3, 7))
    merged = q.ndim == 3
    q = _heads(q, attributes, "q_num_heads")
    k, v = _heads(k, attributes, "kv_num_heads"), _heads(v, attributes, "kv_num_heads")
    if (past_k is None) != (past_v is None) or (past_k is not None and valid is not None):
        raise ShapeError(
            f"{_OP}: past_key {'is' if past_k is not None else 'is not'} given, past_value "
            f"{'is' if past_v is not None else 'is not'}, nonpad_kv_seqlen {'is' if valid is not None else 'is not'}; "
            "allowed are both pasts without nonpad_kv_seqlen, or neither"
        )
    past = 0
    if past_k is not None and past_v is not None:
        past = past_k.shape[2]
        k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    batch, heads, queries, size = q.shape
    groups, keys = k.shape[1], k.shape[2]
    if heads % groups or v.shape[1] != groups or k.shape[3] != size or v.shape[2] != keys:
        raise ShapeError(
            f"{_OP}: Q is {list(q.shape)}, K {list(k.shape)}, V {list(v.shape)} as [B, heads, length, head size]; "
            "allowed are equal head sizes of Q and K, equal heads and lengths of K and V, query heads a multiple "
            "of theirs"
        )

    scale = number(_OP, attributes, "scale", 1 / math.sqrt(size))
    if scale < 0:
        raise refusal(_OP, "scale", scale, "a number from 0 on (its square root is taken)")
    root = math.sqrt(scale)
    # The query heads of a group stand in a row, so that keys and values are never repeated.
    grouped = (q * root).reshape(batch, groups, heads // groups * queries, size)
    scores = torch.matmul(grouped, (k * root).transpose(2, 3)).reshape(batch, heads, queries, keys)
    stages = [scores]
    softcap = number(_OP, attributes, "softcap", 0.0)
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    stages.append(scores)

    bias = _bias(mask, _allowed((queries, keys), attributes, past, valid, q.device), keys, q.dtype)
    if bias is not None:
        scores = scores + bias
    stages.append(scores)
    wide = compute_dtype(q.dtype)
    if "softmax_precision" in attributes:
        code = choice(_OP, attributes, "softmax_precision", (1, 10, 11, 16))
        wide = held_as(_OP, "softmax_precision", code)
    weights = torch.softmax(scores, -1, dtype=wide).to(q.dtype)
    if bias is not None:
        weights = weights.masked_fill((bias == float("-inf")).all(-1, keepdim=True), 0)
    stages.append(weights)

    y = torch.matmul(weights.reshape(batch, groups, heads // groups * queries, keys), v)
    y = y.reshape(batch, heads, queries, v.shape[3])
    if merged:
        y = y.transpose(1, 2).flatten(2)
    mode = choice(_OP, attributes, "qk_matmul_output_mode", (0, 1, 2, 3), 0)
    return context.results(y, k, v, stages[mode])
