"""Attention of GPT-like models as functions, keyword-compatible with TensorRT-LLM 0.5.0, and the words they use."""

from .attention import bert_attention, gpt_attention
from .helpers import expand_mask, gather_last_token_logits, generate_alibi_biases, generate_alibi_slopes
from .params import AttentionParams, KeyValueCacheParams
from .vocabulary import (
    AttentionMaskType,
    LayerNormPositionType,
    LayerNormType,
    PositionEmbeddingType,
    RotaryScalingType,
)

__all__ = [
    "AttentionMaskType",
    "AttentionParams",
    "KeyValueCacheParams",
    "LayerNormPositionType",
    "LayerNormType",
    "PositionEmbeddingType",
    "RotaryScalingType",
    "bert_attention",
    "expand_mask",
    "gather_last_token_logits",
    "generate_alibi_biases",
    "generate_alibi_slopes",
    "gpt_attention",
]
