"""What a decoder network needs to know, in our words, whatever its family."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and choices of a GPT-like decoder.

    positions:  longest sequence; rows of the position table where `learned` is True
    norm:       "layer" or "rms"
    gated:      the feed-forward layer multiplies an activated gate with a second projection
    rotary:     attributes of GptAttention about positions; empty without rotary embeddings
    q_scaling:  of each layer, see GptAttention
    window:     keys that a query sees, 0 for all
    tied:       the head is the word embedding
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    positions: int
    norm: str = "layer"
    epsilon: float = 1e-5
    activation: str = "gelu_tanh"
    gated: bool = False
    learned: bool = False
    rotary: Mapping[str, Any] = field(default_factory=dict)
    q_scaling: tuple[float, ...] = ()
    window: int = 0
    tied: bool = True

    @property
    def qkv_width(self) -> int:
        """Columns of the fused projection."""
        return (self.heads + 2 * self.kv_heads) * self.head_size
