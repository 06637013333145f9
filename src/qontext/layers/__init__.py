"""Layers: classes that hold weights and run on tensors or graph values, and the parts that importers draw with."""

from .attention import Attention, BertAttention
from .basic import MLP, Embedding, GatedMLP, GroupNorm, LayerNorm, RmsNorm
from .linear import ColumnLinear, FP8Linear, FP8RowLinear, RowLinear
from .module import Module
from .parallel import kv_head_rows, make_group, padded_vocabulary

__all__ = [
    "MLP",
    "Attention",
    "BertAttention",
    "ColumnLinear",
    "Embedding",
    "FP8Linear",
    "FP8RowLinear",
    "GatedMLP",
    "GroupNorm",
    "LayerNorm",
    "Module",
    "RmsNorm",
    "RowLinear",
    "kv_head_rows",
    "make_group",
    "padded_vocabulary",
]
