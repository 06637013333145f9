"""BERT."""

from .family import PLAIN_SPAN, PLAIN_TOKENS, USUAL_KEYS, USUAL_NAMES, USUAL_TASKS, Family, Head

BERT = Family(
    model_types=("bert",),
    prefix="bert.",
    keys=USUAL_KEYS,
    names=USUAL_NAMES,
    pooler="pooler.dense",
    heads={
        "fill-mask": Head(
            "mlm",
            {
                "dense": "cls.predictions.transform.dense",
                "norm": "cls.predictions.transform.LayerNorm",
                "bias": "cls.predictions.bias",
            },
            activation="hidden",
            tied=("cls.predictions.decoder",),
        ),
        "classify": Head("pooled", {"out": "classifier"}),
        "token-classify": PLAIN_TOKENS,
        "answer": PLAIN_SPAN,
    },
    ignored=("cls.seq_relationship", "embeddings.position_ids"),
    classes=("Bert",),
    tasks={**USUAL_TASKS, "ForPreTraining": "fill-mask"},
)
