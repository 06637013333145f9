"""The words of attention layers: masks, positions, rotary scaling, norms. Numbers as in TensorRT-LLM 0.5.0."""

from enum import IntEnum


class AttentionMaskType(IntEnum):
    """Which keys a query sees.

    padding:       all that are there (BERT)
    causal:        those up to its own position (GPT)
    bidirectional: causal, and all of the context but its last token (ChatGLM)
    """

    padding = 0
    causal = 1
    bidirectional = 2


class PositionEmbeddingType(IntEnum):
    """How attention learns about positions.

    rope_gptj turns neighbouring elements of a head, rope_gpt_neox element i with i + half; alibi_with_scale scales its
    slopes by the factor of Q K^T as well; relative adds a learned bias.
    """

    learned_absolute = 0
    rope_gptj = 1
    rope_gpt_neox = 2
    alibi = 3
    alibi_with_scale = 4
    relative = 5

    def is_rope(self) -> bool:
        return self in (PositionEmbeddingType.rope_gptj, PositionEmbeddingType.rope_gpt_neox)

    def is_alibi(self) -> bool:
        return self in (PositionEmbeddingType.alibi, PositionEmbeddingType.alibi_with_scale)

    @staticmethod
    def choices() -> list[str]:
        """The names, for command lines."""
        return [embedding.name for embedding in PositionEmbeddingType]


class RotaryScalingType(IntEnum):
    """How rotary embeddings reach beyond the length they were trained on.

    linear:  positions divided by the factor
    dynamic: beyond the trained length the base grows with the length of the sequence (NTK-aware)
    yarn:    slow pairs interpolated, fast ones kept, logits tempered (https://arxiv.org/abs/2309.00071)
    llama3:  slow pairs interpolated with a smooth border, as LLaMA 3.1 has it
    """

    none = 0
    linear = 1
    dynamic = 2
    yarn = 3
    llama3 = 4


class LayerNormType(IntEnum):
    LayerNorm = 0
    RmsNorm = 1
    GroupNorm = 2


class LayerNormPositionType(IntEnum):
    pre_layernorm = 0
    post_layernorm = 1
