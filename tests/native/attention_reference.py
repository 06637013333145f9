"""Attention in float64, written out: the truth that the kernels are held against."""

import torch


def visible(
    queries: int,
    keys: int,
    valid: int,
    causal: bool,
    offset: int | None,
    window: tuple[int, int],
    prefix: int,
) -> torch.Tensor:
    """Which keys each query sees by position, bool `[S, Skv]`."""
    shift = valid - queries if offset is None else offset
    i = torch.arange(queries)[:, None] + shift
    j = torch.arange(keys)[None, :]
    seen = j < valid
    limit = torch.full_like(i, keys)
    if causal:
        limit = i + 1
    if window[1] >= 0:
        limit = torch.minimum(limit, i + window[1] + 1)
    if causal:
        limit = limit.clamp_min(prefix)
    seen = seen & (j < limit)
    if window[0] >= 0:
        seen = seen & (j >= i - window[0])
    return seen


def one_sequence(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    valid: int | None = None,
    scale: float | None = None,
    causal: bool = False,
    offset: int | None = None,
    window: tuple[int, int] = (-1, -1),
    prefix: int = 0,
    softcap: float = 0.0,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    empty_row: str = "zeros",
) -> torch.Tensor:
    """q `[S, N, D]`, k `[Skv, Nkv, D]`, v `[Skv, Nkv, Dv]`, masks `[N or 1, S or 1, Skv or 1]` -> `[S, N, Dv]`."""
    q, k, v = (t.double().transpose(0, 1) for t in (q, k, v))
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    scores = q @ k.transpose(1, 2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias.double()[..., : scores.shape[1], : scores.shape[2]]
    seen = visible(q.shape[1], k.shape[1], k.shape[1] if valid is None else valid, causal, offset, window, prefix)
    scores = scores.masked_fill(~seen, float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask.bool()[..., : scores.shape[1], : scores.shape[2]], float("-inf"))
    empty = (scores == float("-inf")).all(-1, keepdim=True)
    weights = scores.masked_fill(empty, 0.0).softmax(-1)
    weights = weights.masked_fill(empty, 1.0 / max(k.shape[1], 1) if empty_row == "uniform" else 0.0)
    return (weights @ v).transpose(0, 1)
