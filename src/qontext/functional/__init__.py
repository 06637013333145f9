"""Attention of GPT-like models as functions, keyword-compatible with TensorRT-LLM 0.5.0, and the words they use."""

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
]
