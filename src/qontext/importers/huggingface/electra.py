"""ELECTRA: embeddings of their own size, heads of their own."""

from .family import PLAIN_SPAN, PLAIN_TOKENS, USUAL_KEYS, USUAL_NAMES, USUAL_TASKS, Family, Head

ELECTRA = Family(
    model_types=("electra",),
    prefix="electra.",
    keys={**USUAL_KEYS, "embedding": "embedding_size"},
    names={**USUAL_NAMES, "projection": "embeddings_project"},
    heads={
        "fill-mask": Head(
            "mlm",
            {
                "dense": "generator_predictions.dense",
                "norm": "generator_predictions.LayerNorm",
                "bias": "generator_lm_head.bias",
            },
            tied=("generator_lm_head",),
        ),
        "classify": Head("first", {"dense": "classifier.dense", "out": "classifier.out_proj"}),
        "token-classify": PLAIN_TOKENS,
        "answer": PLAIN_SPAN,
    },
    ignored=("discriminator_predictions", "embeddings.position_ids"),
    classes=("Electra",),
    tasks={**USUAL_TASKS, "ForPreTraining": "encode"},  # the discriminator: it has no language model's head
)
