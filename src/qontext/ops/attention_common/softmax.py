"""The reference of attention, one step after the other."""

from dataclasses import dataclass

import torch

from .masks import added, attended, empty_rows
from .problem import Problem

Tensor = torch.Tensor


@dataclass(frozen=True)
class Steps:
    """Everything that attention computes on its way.

    context: `[B, S, N, Dv]` (packed: `[T, N, Dv]`)
    scaled:  scale * Q K^T, `[B, N, S, Skv]` like all that follow
    capped:  after the soft cap (the same when there is none)
    masked:  with mask and bias added, -inf where masked
    probs:   after softmax, wholly masked rows as `empty_row` says
    """

    context: Tensor
    scaled: Tensor
    capped: Tensor
    masked: Tensor
    probs: Tensor


def attend(problem: Problem) -> Steps:
    """Attention of one problem, padded or packed, in the dtype of its operands.

    In a packed problem the steps have the sizes of the longest sequence, with zeros (-inf in `masked`) behind.
    """
    if problem.cu_q is not None:
        return _one_by_one(problem)
    rule = problem.rule
    query = problem.query.transpose(1, 2)
    key = problem.key.transpose(1, 2).repeat_interleave(problem.groups, dim=1)
    value = problem.value.transpose(1, 2).repeat_interleave(problem.groups, dim=1)

    scaled = query @ key.transpose(-1, -2) * rule.scale
    capped = rule.softcap * torch.tanh(scaled / rule.softcap) if rule.softcap else scaled
    allowed, extra = attended(problem), added(problem, scaled.dtype)
    unmasked = capped if extra is None else capped + extra
    masked = unmasked if allowed is None else unmasked.masked_fill(~allowed, -torch.inf)

    empty = empty_rows(allowed, extra)
    probs = torch.softmax(masked, dim=-1)
    if empty is not None:
        if rule.empty_row == "uniform":
            fill = torch.full_like(probs, 1 / max(probs.shape[-1], 1))
        elif rule.empty_row == "as_unmasked":
            fill = torch.softmax(unmasked, dim=-1).nan_to_num(0.0)
        else:
            fill = torch.zeros_like(probs)
        probs = torch.where(empty, fill, probs)
    return Steps((probs @ value).transpose(1, 2), scaled, capped, masked, probs)


def _one_by_one(problem: Problem) -> Steps:
    parts = [attend(sequence) for sequence in problem.sequences()]
    tokens = [part.context[0] for part in parts]
    context = (
        torch.cat(tokens) if tokens else problem.query.new_zeros(0, problem.query.shape[1], problem.value.shape[2])
    )
    return Steps(
        context,
        _padded([part.scaled[0] for part in parts], 0.0),
        _padded([part.capped[0] for part in parts], 0.0),
        _padded([part.masked[0] for part in parts], -torch.inf),
        _padded([part.probs[0] for part in parts], 0.0),
    )


def _padded(scores: list[Tensor], fill: float) -> Tensor:
    """`[N, S, Skv]` of every sequence to one `[B, N, S, Skv]`."""
    if not scores:
        return torch.zeros(0, 0, 0, 0)
    rows, columns = max(s.shape[1] for s in scores), max(s.shape[2] for s in scores)
    return torch.stack(
        [torch.nn.functional.pad(s, (0, columns - s.shape[2], 0, rows - s.shape[1]), value=fill) for s in scores]
    )
