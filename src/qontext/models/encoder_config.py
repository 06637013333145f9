"""What an encoder network needs to know, in our words, whatever its family."""

from dataclasses import dataclass

RELATIVE_BUCKETS = 32


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and choices of a BERT-class encoder.

    vocabulary, positions, types: rows of the three embedding tables (types 0: no such table)
    embedding:      size of the embeddings; projected to `hidden` where it differs
    inner:          feed-forward size
    activation:     "gelu", "gelu_tanh", "relu" or "silu"
    padding_idx:    RoBERTa's rule for positions counts from here; None counts from 0
    relative_buckets: rows of MPNet's table of relative positions, 0 for none; the first RELATIVE_BUCKETS are used
    tied:           the decoder of a masked language model is the word embedding
    groups:         layers that share their weights (ALBERT): the weights of layer i are those of group groups[i]
    """

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    inner: int
    positions: int
    types: int = 2
    embedding: int = 0
    activation: str = "gelu"
    epsilon: float = 1e-12
    padding_idx: int | None = None
    relative_buckets: int = 0
    groups: tuple[int, ...] = ()
    labels: int = 2
    tied: bool = True

    @property
    def embedding_size(self) -> int:
        return self.embedding or self.hidden

    @property
    def max_length(self) -> int:
        """Longest sequence that has positions."""
        return self.positions - (0 if self.padding_idx is None else self.padding_idx + 1)
