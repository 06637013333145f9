"""RoBERTa and XLM-RoBERTa."""

from .family import PLAIN_SPAN, PLAIN_TOKENS, USUAL_KEYS, USUAL_NAMES, Family, Head

ROBERTA_HEADS = {
    "fill-mask": Head(
        "mlm",
        {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": "lm_head.bias"},
        tied=("lm_head.decoder",),
    ),
    "classify": Head("first", {"dense": "classifier.dense", "out": "classifier.out_proj"}, activation="tanh"),
    "token-classify": PLAIN_TOKENS,
    "answer": PLAIN_SPAN,
}

ROBERTA = Family(
    model_types=("roberta", "xlm-roberta"),
    prefix="roberta.",
    keys=USUAL_KEYS,
    names=USUAL_NAMES,
    pooler="pooler.dense",
    heads=ROBERTA_HEADS,
    ignored=("embeddings.position_ids",),
    roberta_positions=True,
    classes=("Roberta", "XLMRoberta"),
    pad=1,
)
