"""EmbedLayerNorm in plain torch."""

import torch

from ..layer_norm.reference import reference as layer_norm
from .ids import check_ids, numbered_from_padding, too_long


def reference(
    input_ids: torch.Tensor,
    word_embedding: torch.Tensor,
    position_ids: torch.Tensor | None = None,
    position_embedding: torch.Tensor | None = None,
    token_type_ids: torch.Tensor | None = None,
    token_type_embedding: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    position_offset: int = 0,
    padding_idx: int = -1,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Returns (LayerNorm(sum), sum = word + position + type, valid counts of attention_mask or None)."""
    check_ids("input_ids", input_ids, "word_embedding", len(word_embedding))
    total = word_embedding[input_ids.long()]
    if position_embedding is not None:
        if position_ids is None and padding_idx >= 0:
            position_ids = numbered_from_padding(input_ids, padding_idx)
        elif position_ids is None:
            length = input_ids.shape[-1]
            if length + position_offset > len(position_embedding):
                raise too_long(length, position_offset, len(position_embedding))
            position_ids = torch.arange(length, device=input_ids.device) + position_offset
        check_ids("position_ids", position_ids, "position_embedding", len(position_embedding))
        total = total + position_embedding[position_ids.long()]
    if token_type_embedding is not None:
        kinds = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        check_ids("token_type_ids", kinds, "token_type_embedding", len(token_type_embedding))
        total = total + token_type_embedding[kinds.long()]
    lengths = None if attention_mask is None else (attention_mask != 0).sum(-1, dtype=torch.int32)
    return layer_norm(total, weight, bias, epsilon=epsilon), total, lengths
