"""What a family is: tables of configuration keys and weight names, nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...models.encoder_config import EncoderConfig

EMBEDDINGS = ("word", "position", "type")
LAYER = ("query", "key", "value", "attention_output", "attention_norm", "up", "down", "output_norm")


@dataclass(frozen=True)
class Head:
    """A task head.

    kind:    how the network is drawn: "mlm", "first" (dense + activation + out on the first token), "pooled" (out on
             the pooler), "tokens" (out on every token), "span"
    names:   our part -> Hugging Face name: "dense", "norm", "out", "bias" (of the tied decoder)
    activation: of the dense part
    tied:    the name under which the decoder's own weight may stand (it is the word embedding)
    """

    kind: str
    names: Mapping[str, str]
    activation: str = "gelu"
    tied: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """One family of encoders.

    model_types: values of config.json's model_type
    prefix:      of the encoder's weights when a head is there
    keys:        our configuration field -> key of config.json
    names:       our part -> Hugging Face name without prefix; "{i}" is the layer
    heads:       task -> head
    ignored:     beginnings of weight names that are known and not needed
    fixed:       configuration fields that the family always has
    roberta_positions: positions count from padding_idx + 1
    classes:     beginnings of the names in config.json's architectures
    tasks:       end of those names -> task; other names have heads that we do not have
    defaults:    configuration field -> value where config.json lacks the key and the family's default is its own
    pad:         pad_token_id where config.json lacks it
    """

    model_types: tuple[str, ...]
    prefix: str
    keys: Mapping[str, str]
    names: Mapping[str, str]
    heads: Mapping[str, Head]
    ignored: tuple[str, ...] = ()
    fixed: Mapping[str, object] = field(default_factory=dict)
    roberta_positions: bool = False
    pooler: str | None = None
    classes: tuple[str, ...] = ()
    tasks: Mapping[str, str] = field(default_factory=lambda: USUAL_TASKS)
    defaults: Mapping[str, object] = field(default_factory=dict)
    pad: int = 0


USUAL_TASKS: Mapping[str, str] = {
    "Model": "encode",
    "ForMaskedLM": "fill-mask",
    "ForSequenceClassification": "classify",
    "ForTokenClassification": "token-classify",
    "ForQuestionAnswering": "answer",
}
USUAL_KEYS = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "inner": "intermediate_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
    "activation": "hidden_act",
    "epsilon": "layer_norm_eps",
}
USUAL_NAMES = {
    "word": "embeddings.word_embeddings",
    "position": "embeddings.position_embeddings",
    "type": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "query": "encoder.layer.{i}.attention.self.query",
    "key": "encoder.layer.{i}.attention.self.key",
    "value": "encoder.layer.{i}.attention.self.value",
    "attention_output": "encoder.layer.{i}.attention.output.dense",
    "attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "up": "encoder.layer.{i}.intermediate.dense",
    "down": "encoder.layer.{i}.output.dense",
    "output_norm": "encoder.layer.{i}.output.LayerNorm",
}
PLAIN_TOKENS = Head("tokens", {"out": "classifier"})
PLAIN_SPAN = Head("span", {"out": "qa_outputs"})

__all__ = [
    "EMBEDDINGS",
    "LAYER",
    "PLAIN_SPAN",
    "PLAIN_TOKENS",
    "USUAL_KEYS",
    "USUAL_NAMES",
    "USUAL_TASKS",
    "EncoderConfig",
    "Family",
    "Head",
]
