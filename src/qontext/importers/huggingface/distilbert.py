"""DistilBERT."""

from .family import PLAIN_SPAN, PLAIN_TOKENS, Family, Head

DISTILBERT = Family(
    model_types=("distilbert",),
    prefix="distilbert.",
    keys={
        "vocabulary": "vocab_size",
        "hidden": "dim",
        "layers": "n_layers",
        "heads": "n_heads",
        "inner": "hidden_dim",
        "positions": "max_position_embeddings",
        "activation": "activation",
    },
    names={
        "word": "embeddings.word_embeddings",
        "position": "embeddings.position_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "query": "transformer.layer.{i}.attention.q_lin",
        "key": "transformer.layer.{i}.attention.k_lin",
        "value": "transformer.layer.{i}.attention.v_lin",
        "attention_output": "transformer.layer.{i}.attention.out_lin",
        "attention_norm": "transformer.layer.{i}.sa_layer_norm",
        "up": "transformer.layer.{i}.ffn.lin1",
        "down": "transformer.layer.{i}.ffn.lin2",
        "output_norm": "transformer.layer.{i}.output_layer_norm",
    },
    heads={
        "fill-mask": Head(
            "mlm",
            {"dense": "vocab_transform", "norm": "vocab_layer_norm", "bias": "vocab_projector.bias"},
            activation="hidden",
            tied=("vocab_projector",),
        ),
        "classify": Head("first", {"dense": "pre_classifier", "out": "classifier"}, activation="relu"),
        "token-classify": PLAIN_TOKENS,
        "answer": PLAIN_SPAN,
    },
    fixed={"types": 0, "epsilon": 1e-12},
    classes=("DistilBert",),
)
