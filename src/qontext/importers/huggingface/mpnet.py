"""MPNet: no token types, RoBERTa's positions, one relative position bias for all layers."""

from .family import USUAL_KEYS, Family
from .roberta import ROBERTA_HEADS

MPNET = Family(
    model_types=("mpnet",),
    prefix="mpnet.",
    keys={k: v for k, v in USUAL_KEYS.items() if k != "types"} | {"relative_buckets": "relative_attention_num_buckets"},
    names={
        "word": "embeddings.word_embeddings",
        "position": "embeddings.position_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "relative": "encoder.relative_attention_bias",
        "query": "encoder.layer.{i}.attention.attn.q",
        "key": "encoder.layer.{i}.attention.attn.k",
        "value": "encoder.layer.{i}.attention.attn.v",
        "attention_output": "encoder.layer.{i}.attention.attn.o",
        "attention_norm": "encoder.layer.{i}.attention.LayerNorm",
        "up": "encoder.layer.{i}.intermediate.dense",
        "down": "encoder.layer.{i}.output.dense",
        "output_norm": "encoder.layer.{i}.output.LayerNorm",
    },
    pooler="pooler.dense",
    heads=ROBERTA_HEADS,
    ignored=("embeddings.position_ids",),
    fixed={"types": 0, "padding_idx": 1},  # positions count from 2 whatever pad_token_id says
    roberta_positions=True,
    classes=("MPNet",),
    pad=1,
)
