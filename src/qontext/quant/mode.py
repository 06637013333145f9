"""QuantMode: which parts of a model are held in few bits, as flags.

The names and the rules of what goes together follow TensorRT-LLM 0.5.0's QuantMode, so that settings carry over.
"""

from enum import IntFlag, auto

from ..errors import ArgumentError, all_problems


class QuantMode(IntFlag):
    """Flags of a quantisation scheme. Weights without activations is weight-only; both is W8A8."""

    INT4_WEIGHTS = auto()
    INT8_WEIGHTS = auto()
    ACTIVATIONS = auto()
    PER_CHANNEL = auto()
    PER_TOKEN = auto()
    PER_GROUP = auto()
    INT8_KV_CACHE = auto()
    FP8_KV_CACHE = auto()
    FP8_QDQ = auto()

    @property
    def weight_bits(self) -> int | None:
        """4 or 8 for whole-number weights, None when they stay floats."""
        if self & QuantMode.INT4_WEIGHTS:
            return 4
        return 8 if self & QuantMode.INT8_WEIGHTS else None

    @property
    def is_weight_only(self) -> bool:
        return self.weight_bits is not None and not self & QuantMode.ACTIVATIONS

    @property
    def has_activations_and_weights(self) -> bool:
        return bool(self & QuantMode.INT8_WEIGHTS and self & QuantMode.ACTIVATIONS)

    @property
    def has_dynamic_token_scales(self) -> bool:
        """Activation scales are found at run time for each token; otherwise they are static for the tensor."""
        return bool(self & QuantMode.PER_TOKEN)

    @property
    def has_quantised_cache(self) -> bool:
        return bool(self & (QuantMode.INT8_KV_CACHE | QuantMode.FP8_KV_CACHE))

    @classmethod
    def from_description(
        cls,
        quantize_weights: bool = False,
        quantize_activations: bool = False,
        per_token: bool = False,
        per_channel: bool = False,
        per_group: bool = False,
        use_int4_weights: bool = False,
        use_int8_kv_cache: bool = False,
        use_fp8_kv_cache: bool = False,
        use_fp8_qdq: bool = False,
    ) -> "QuantMode":
        """The mode that a description means.

        Raises ArgumentError listing every contradiction: activations without weights, scales by token or channel
        without both, int4 weights or groups without quantised weights, int4 weights with activations, groups with
        activations, two kinds of cache.
        """
        both = quantize_weights and quantize_activations
        rules = {
            "quantize_activations needs quantize_weights": quantize_activations and not quantize_weights,
            "per_token needs quantised weights and activations": per_token and not both,
            "per_channel needs quantised weights and activations": per_channel and not both,
            "use_int4_weights needs quantize_weights": use_int4_weights and not quantize_weights,
            "use_int4_weights goes with float activations only": use_int4_weights and quantize_activations,
            "per_group needs quantised weights and float activations": per_group and (not quantize_weights or both),
            "the cache is int8 or fp8, not both": use_int8_kv_cache and use_fp8_kv_cache,
        }
        problems = [text for text, broken in rules.items() if broken]
        if problems:
            raise ArgumentError(all_problems("QuantMode.from_description", problems))
        chosen = {
            cls.INT4_WEIGHTS: quantize_weights and use_int4_weights,
            cls.INT8_WEIGHTS: quantize_weights and not use_int4_weights,
            cls.ACTIVATIONS: quantize_activations,
            cls.PER_CHANNEL: per_channel,
            cls.PER_TOKEN: per_token,
            cls.PER_GROUP: per_group,
            cls.INT8_KV_CACHE: use_int8_kv_cache,
            cls.FP8_KV_CACHE: use_fp8_kv_cache,
            cls.FP8_QDQ: use_fp8_qdq,
        }
        mode = cls(0)
        for flag, on in chosen.items():
            if on:
                mode |= flag
        return mode

    @classmethod
    def use_smooth_quant(cls, per_token: bool = False, per_channel: bool = False) -> "QuantMode":
        """int8 weights and activations."""
        return cls.from_description(True, True, per_token, per_channel)

    @classmethod
    def use_weight_only(cls, use_int4_weights: bool = False, per_group: bool = False) -> "QuantMode":
        """Few-bit weights, float activations."""
        return cls.from_description(True, use_int4_weights=use_int4_weights, per_group=per_group)
