"""QKVToContext in plain torch."""

from typing import Any

import torch

from ..attention_common.layouts import CONTEXT_OF, from_heads
from ..attention_common.problem import padded
from ..attention_common.softmax import attend
from ..eight_bits import NONE, held
from .problem import problem_of


def reference(
    qkv: torch.Tensor,
    lengths: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    cu_seqlens: torch.Tensor | None = None,
    max_seqlen: torch.Tensor | None = None,
    prefix_lengths: torch.Tensor | None = None,
    context_scale: torch.Tensor | None = None,
    context_zero: torch.Tensor | None = None,
    context_factor: torch.Tensor | None = None,
    **attributes: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """softmax(scale * Q K^T + masks) V for every head, with Q, K and V cut out of the projection."""
    problem = problem_of((qkv, lengths, mask, bias, cu_seqlens, max_seqlen, prefix_lengths), attributes)
    steps = attend(problem)
    values = padded(problem.value, problem.cu_kv).transpose(1, 2).contiguous()
    context = from_heads(steps.context, CONTEXT_OF[attributes["layout"]])
    kind = attributes["eight_bits"]
    if kind != NONE:
        flat = context if context.shape[-1] != 1 or context.dim() < 5 else context[..., 0, 0]
        bits = held(flat, kind, context_scale, context_zero, context_factor)[0]
        return bits.reshape(context.shape).contiguous(), steps.masked, values
    return context.contiguous(), steps.masked, values
