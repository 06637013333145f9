"""Attention with PyTorch's own operators: its fused one, and two matrix products with a softmax between them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .masks import added, attended, empty_rows
from .problem import Problem

Tensor = torch.Tensor
_SCORES_AT_ONCE = 1 << 22  # scores computed before they are used: 16 MB in float32, within a cache of the processor


def fused(problem: Problem) -> Tensor:
    """The context `[B, S, N, Dv]` (packed: `[T, N, Dv]`) from `scaled_dot_product_attention`."""
    if problem.cu_q is not None:
        return _concatenate(problem, [fused(sequence)[0] for sequence in problem.sequences()])
    rule = problem.rule
    query, key, value = (x.transpose(1, 2) for x in (problem.query, problem.key, problem.value))
    if 0 in (*query.shape, *key.shape):
        return problem.query.new_zeros(*problem.query.shape[:-1], problem.value.shape[-1])
    if _top_left_causal(problem):
        context = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=rule.scale, enable_gqa=problem.groups > 1
        )
        return context.transpose(1, 2)
    allowed, extra = attended(problem), added(problem, torch.float32)
    empty = None if rule.empty_row == "zeros" else empty_rows(allowed, extra)
    if empty is not None and allowed is not None:
        allowed = allowed | empty  # such a row is computed without masks and replaced below where it has to be
    mask = allowed if extra is None else extra if allowed is None else extra.masked_fill(~allowed, -torch.inf)
    with _backends_for(mask):
        context = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=rule.scale, enable_gqa=problem.groups > 1
        )
    if empty is not None and rule.empty_row == "uniform":
        context = torch.where(empty, _mean(value, problem.groups), context)
    return context.transpose(1, 2)


def two_products(problem: Problem, out: Tensor, scores: Tensor | None = None) -> None:
    """Writes the context into `out` `[B, S, N, Dv]` (packed: `[T, N, Dv]`) from two batched products and a softmax.

    `scores`, when given, takes the scaled and masked logits `[B, N, S, Skv]` (padded problems only).
    """
    if problem.cu_q is not None:
        start = 0
        for sequence in problem.sequences():
            end = start + sequence.query.shape[1]
            two_products(sequence, out[None, start:end])
            start = end
        return
    query, key, value = (x.transpose(1, 2) for x in (problem.query, problem.key, problem.value))
    allowed, extra = attended(problem), added(problem, torch.float32)
    empty = empty_rows(allowed, extra)
    none = query.new_zeros(())  # baddbmm scales in the same pass, its addend is unused (beta = 0)
    for b in range(query.shape[0]):
        keys = key[b].repeat_interleave(problem.groups, 0) if problem.groups > 1 else key[b]
        values = value[b].repeat_interleave(problem.groups, 0) if problem.groups > 1 else value[b]
        for rows in _row_blocks(query.shape[2], keys.shape[0] * keys.shape[1]):
            logits = torch.baddbmm(none, query[b, :, rows], keys.transpose(1, 2), beta=0, alpha=problem.rule.scale)
            if problem.rule.softcap:
                logits.div_(problem.rule.softcap).tanh_().mul_(problem.rule.softcap)
            addend = _part(extra, b, rows)
            if addend is not None:
                logits = logits + addend  # in float32: a half would lose the logits beside -1e4
            probs = _softmax(problem, logits, _part(allowed, b, rows), _part(empty, b, rows))
            out[b, rows].copy_(torch.bmm(probs.to(values.dtype), values).transpose(0, 1))
            if scores is not None:
                scores[b, :, rows].copy_(logits)


def _backends_for(mask: Tensor | None) -> AbstractContextManager[None]:
    """Those that are right on a GPU; left to itself, PyTorch 2.11 takes cuDNN's, which reads a float32 mask beside
    halves as halves and gives rows without a key other values than zeros."""
    if mask is None or not mask.is_cuda:
        return nullcontext()
    if mask.is_floating_point():
        return sdpa_kernel(SDPBackend.MATH)
    return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def _top_left_causal(problem: Problem) -> bool:
    """Causal with as many queries as keys and no other mask: the only case that torch's `is_causal` flag means."""
    rule = problem.rule
    return (
        rule.kind == "causal"
        and isinstance(problem.offset, int)
        and problem.offset == 0
        and problem.query.shape[1] == problem.key.shape[1]
        and problem.mask is problem.bias is problem.lengths is None
        and rule.window_left < 0
        and rule.window_right < 0
    )


def _softmax(problem: Problem, logits: Tensor, allowed: Tensor | None, empty: Tensor | None) -> Tensor:
    """Masks `logits` in place and returns the probabilities, wholly masked rows as the rule says."""
    how = problem.rule.empty_row
    bare = torch.softmax(logits, -1).nan_to_num_(0.0) if how == "as_unmasked" and empty is not None else None
    if allowed is not None:
        logits.masked_fill_(~allowed, -torch.inf)
    probs = torch.softmax(logits, -1)
    if empty is None:
        return probs
    if bare is not None:
        return torch.where(empty, bare, probs)
    return probs.masked_fill_(empty, 1 / max(logits.shape[-1], 1) if how == "uniform" else 0.0)


def _row_blocks(rows: int, scores_a_row: int) -> Iterator[slice]:
    step = max(1, _SCORES_AT_ONCE // max(scores_a_row, 1))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _part(x: Tensor | None, b: int, rows: slice) -> Tensor | None:
    """What of a broadcast `[B|1, N|1, S|1, Skv]` belongs to sequence b and these rows: `[N|1, S|1, Skv]`."""
    if x is None:
        return None
    own = x[b if x.shape[0] > 1 else 0]
    return own[:, rows] if own.shape[1] > 1 else own


def _mean(value: Tensor, groups: int) -> Tensor:
    """The mean of all values `[B, N, 1, Dv]`."""
    return value.float().mean(2, keepdim=True).to(value.dtype).repeat_interleave(groups, 1)


def _concatenate(problem: Problem, parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else problem.query.new_zeros(0, problem.query.shape[1], problem.value.shape[2])
