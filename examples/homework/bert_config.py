"""What the homework's builder is told: the model's configuration, flags, limits."""

import json
from dataclasses import dataclass
from pathlib import Path

from qontext.errors import UnsupportedModelError
from qontext.plugins import Op


class BertConfig:
    """The model's configuration and how to build it.

    Args:
        bert_config_path: config.json of the model.
        use_fp16, use_int8, use_strict: the flags -f, -i, -t. A strict build keeps the precision it was told, which
            qontext always does.
    """

    def __init__(self, bert_config_path: str, use_fp16: bool, use_int8: bool, use_strict: bool):
        try:
            data = json.loads(Path(bert_config_path).read_text(encoding="utf-8"))
            self.num_attention_heads = int(data["num_attention_heads"])
            self.hidden_size = int(data["hidden_size"])
            self.intermediate_size = int(data["intermediate_size"])
            self.num_hidden_layers = int(data["num_hidden_layers"])
            self.max_position_embeddings = int(data["max_position_embeddings"])
            self.vocab_size = int(data["vocab_size"])
            self.type_vocab_size = int(data["type_vocab_size"])
            self.layer_norm_eps = float(data.get("layer_norm_eps", 1e-12))
            self.hidden_act = str(data["hidden_act"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnsupportedModelError(f"{bert_config_path} is no BERT configuration: {error!r}") from error
        if self.hidden_size % self.num_attention_heads:
            raise UnsupportedModelError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}"
            )
        self.head_size = self.hidden_size // self.num_attention_heads
        self.folder = Path(bert_config_path).parent
        self.use_fp16 = use_fp16
        self.use_int8 = use_int8
        self.use_strict = use_strict
        self.plugins: list[Op] = []


@dataclass
class BuilderConfig:
    """Limits of the engine; each profile may raise them."""

    max_batch: int = 1
    max_length: int = 1

    def add_optimization_profile(self, batch_sizes: list[int], sequence_lengths: list[int]) -> None:
        """Lets every batch and length up to the largest given ones run."""
        self.max_batch = max(self.max_batch, *batch_sizes)
        self.max_length = max(self.max_length, *sequence_lengths)


def get_mha_dtype(config: BertConfig) -> str:
    """The precision of the engine; with int8 that of linear layers, attention stays in floats."""
    return "int8" if config.use_int8 else "fp16" if config.use_fp16 else "fp32"
