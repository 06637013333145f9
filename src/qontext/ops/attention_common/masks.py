"""Masks of a padded problem: which keys a query attends to, and what is added to its logits."""

import torch

from .problem import Problem

Tensor = torch.Tensor


def attended(problem: Problem) -> Tensor | None:
    """True where a query attends to a key: valid counts, boolean mask, kind and window together.

    Returns:
        bool `[B|1, N|1, S|1, Skv]`, as small as the masks allow; None when everything attends to everything.
    """
    parts = [_by_length(problem), _by_mask(problem), _by_kind(problem), _by_window(problem)]
    result: Tensor | None = None
    for part in parts:
        if part is not None:
            result = part if result is None else result & part
    return result


def added(problem: Problem, dtype: torch.dtype) -> Tensor | None:
    """The sum of the additive mask and the bias `[B|1, N|1, S|1, Skv]` in `dtype`; None when there is neither."""
    mask = problem.mask
    extra = None if mask is None or mask.dtype == torch.bool else _four_axes(mask).to(dtype)
    if problem.bias is None:
        return extra
    rows, columns = problem.query.shape[1], problem.key.shape[1]
    bias = problem.bias[..., :rows, :columns].to(dtype)
    return bias if extra is None else bias + extra


def empty_rows(allowed: Tensor | None, extra: Tensor | None) -> Tensor | None:
    """True for rows that attend to nothing: every key is disallowed or has -inf added.

    Args:
        allowed, extra: from `attended` and `added`.
    Returns:
        bool `[B|1, N|1, S|1, 1]`, None when there are no masks at all.
    """
    if extra is not None:
        finite = extra != -torch.inf
        allowed = finite if allowed is None else allowed & finite
    return None if allowed is None else ~allowed.any(-1, keepdim=True)


def _four_axes(mask: Tensor) -> Tensor:
    return mask[:, None, None, :] if mask.dim() == 2 else mask


def _by_length(problem: Problem) -> Tensor | None:
    if problem.lengths is None:
        return None
    keys = torch.arange(problem.key.shape[1], device=problem.key.device)
    return keys < problem.lengths[:, None, None, None]


def _by_mask(problem: Problem) -> Tensor | None:
    if problem.mask is None or problem.mask.dtype != torch.bool:
        return None
    return _four_axes(problem.mask)


def _distance(problem: Problem) -> Tensor:
    """How far key j lies behind query i, `[B|1, 1, S, Skv]`: negative for keys that come later."""
    device = problem.key.device
    queries = torch.arange(problem.query.shape[1], device=device)[:, None]
    keys = torch.arange(problem.key.shape[1], device=device)
    offset = problem.offset
    start = offset.view(-1, 1, 1, 1) if isinstance(offset, torch.Tensor) else offset
    return (queries - keys)[None, None] + start


def _by_kind(problem: Problem) -> Tensor | None:
    if problem.rule.kind == "full":
        return None
    causal = _distance(problem) >= 0
    if problem.rule.kind == "causal":
        return causal
    assert problem.prefix_lengths is not None
    keys = torch.arange(problem.key.shape[1], device=problem.key.device)
    return causal | (keys < problem.prefix_lengths[:, None, None, None])


def _by_window(problem: Problem) -> Tensor | None:
    left, right = problem.rule.window_left, problem.rule.window_right
    if left < 0 and right < 0:
        return None
    distance = _distance(problem)
    if right < 0:
        return distance <= left
    return -distance <= right if left < 0 else (distance <= left) & (-distance <= right)
