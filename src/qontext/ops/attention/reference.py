"""Attention in plain torch."""

from typing import Any

import torch

from ..attention_common.layouts import from_heads
from ..attention_common.problem import padded
from ..attention_common.softmax import attend
from .problem import problem_of


def reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    past_key: torch.Tensor | None = None,
    past_value: torch.Tensor | None = None,
    key_lengths: torch.Tensor | None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_kv: torch.Tensor | None = None,
    max_seqlen_q: torch.Tensor | None = None,
    max_seqlen_kv: torch.Tensor | None = None,
    prefix_lengths: torch.Tensor | None = None,
    **attributes: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """softmax(scale * Q K^T + masks) V for every head, after past keys and values where there are any."""
    given = (query, key, value, mask, bias, past_key, past_value, key_lengths, cu_seqlens_q, cu_seqlens_kv)
    problem = problem_of((*given, max_seqlen_q, max_seqlen_kv, prefix_lengths), attributes)
    steps = attend(problem)
    present = [padded(x, problem.cu_kv).transpose(1, 2).contiguous() for x in (problem.key, problem.value)]
    context = from_heads(steps.context, attributes["layout"]).contiguous()
    scores: torch.Tensor = getattr(steps, attributes["scores_mode"])
    return context, present[0], present[1], scores
