"""ALBERT: layers share their weights, embeddings are projected."""

from .family import PLAIN_SPAN, PLAIN_TOKENS, USUAL_KEYS, USUAL_TASKS, Family, Head

_LAYER = "encoder.albert_layer_groups.{g}.albert_layers.{j}"

ALBERT = Family(
    model_types=("albert",),
    prefix="albert.",
    keys={**USUAL_KEYS, "embedding": "embedding_size"},
    names={
        "word": "embeddings.word_embeddings",
        "position": "embeddings.position_embeddings",
        "type": "embeddings.token_type_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "projection": "encoder.embedding_hidden_mapping_in",
        "query": f"{_LAYER}.attention.query",
        "key": f"{_LAYER}.attention.key",
        "value": f"{_LAYER}.attention.value",
        "attention_output": f"{_LAYER}.attention.dense",
        "attention_norm": f"{_LAYER}.attention.LayerNorm",
        "up": f"{_LAYER}.ffn",
        "down": f"{_LAYER}.ffn_output",
        "output_norm": f"{_LAYER}.full_layer_layer_norm",
    },
    pooler="pooler",
    heads={
        "fill-mask": Head(
            "mlm",
            {"dense": "predictions.dense", "norm": "predictions.LayerNorm", "bias": "predictions.bias"},
            activation="hidden",
            tied=("predictions.decoder",),
        ),
        "classify": Head("pooled", {"out": "classifier"}),
        "token-classify": PLAIN_TOKENS,
        "answer": PLAIN_SPAN,
    },
    ignored=("embeddings.position_ids", "sop_classifier"),
    classes=("Albert",),
    tasks={**USUAL_TASKS, "ForPreTraining": "fill-mask"},
    defaults={"activation": "gelu_new"},
)
