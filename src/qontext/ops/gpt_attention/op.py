"""Declaration of GptAttention: attention of GPT-like models, with their positions, over a cache that it updates."""

from ...dtypes import FLOATS
from ..declare import Attribute, Op, Param
from . import cpu, gpu
from .cases import cases
from .reference import reference
from .rotary import SCALINGS
from .rules import QUANTISED, check, cost, infer

_SCALE = "1 | Nkv | 2 Nkv"
_COUNTS = "int32|int64"

OP = Op(
    name="GptAttention",
    doc=(
        "Attention of GPT-like models: positions put into queries and keys, keys and values written to a cache, "
        "softmax(Q K^T / (q_scaling sqrt(D)) + biases) V over what the cache holds then. Any mix of sequences in "
        "context and generation phase, in any order."
    ),
    inputs=(
        Param("qkv", "any", doc="fused projection [B, S, (N + 2 Nkv) D], or packed [T, ...] or [1, T, ...]"),
        Param(
            "past",
            "slots 2 Nkv length D",
            "C",
            optional=True,
            doc="keys and values [slots, 2, Nkv, length, D]; paged [pages, 2, Nkv, tokens of a page, D]",
        ),
        Param("past_lengths", "rows", _COUNTS, optional=True, doc="tokens in the cache before this step"),
        Param("query_lengths", "rows", _COUNTS, optional=True, doc="new tokens of each sequence; all of S when absent"),
        Param(
            "slots", "rows", _COUNTS, optional=True, doc="row of the cache or block_table of each sequence; 0, 1, ..."
        ),
        Param("block_table", "tables pages", _COUNTS, optional=True, doc="paged: pages of each slot, in order"),
        Param(
            "cache_indirection",
            "batch beams positions",
            _COUNTS,
            optional=True,
            doc="of which beam each position is read; slot = batch * beams + beam",
        ),
        Param("kv_orig_quant_scale", _SCALE, "float32", optional=True, doc="8-bit caches hold x * scale"),
        Param("kv_quant_orig_scale", _SCALE, "float32", optional=True, doc="and are read as q * scale"),
        Param("qkv_bias", "width", optional=True, doc="[(N + 2 Nkv) D], added to qkv"),
        Param(
            "alibi_slopes",
            "N | 1 N 1 1",
            "float32|float16|bfloat16",
            optional=True,
            doc="slope * key position is added to the logits",
        ),
        Param(
            "relative_attention_bias",
            "N queries keys | N buckets",
            "float32|float16|bfloat16",
            optional=True,
            doc="added to the logits: by positions, or (max_distance > 0) by T5's buckets",
        ),
        Param("prefix_lengths", "rows", _COUNTS, optional=True, doc="mask_type 'bidirectional': keys that all see"),
        Param("cross_qkv", "any", optional=True, doc="cross attention: projection of the encoder outputs, as qkv"),
        Param("encoder_lengths", "rows", _COUNTS, optional=True, doc="cross attention: tokens of each encoder output"),
    ),
    outputs=(
        Param("context", "any", doc="as qkv, with N D columns; zeros where qkv has padding"),
        Param("present", "slots 2 Nkv length D", "C", optional=True, doc="the cache with the new tokens"),
    ),
    attributes=(
        Attribute("num_heads", int, doc="query heads N"),
        Attribute("num_kv_heads", int, doc="key and value heads Nkv, a divisor of N"),
        Attribute("head_size", int, doc="D, at most 256"),
        Attribute("q_scaling", float, 1.0, doc="the logits are divided by q_scaling sqrt(D)"),
        Attribute(
            "mask_type",
            str,
            "causal",
            ("causal", "bidirectional", "padding"),
            doc="bidirectional: causal, and all see the prefix; padding: all see all",
        ),
        Attribute(
            "position",
            str,
            "none",
            ("none", "rope_gptj", "rope_gpt_neox", "alibi", "relative"),
            doc="kind of positions",
        ),
        Attribute("rotary_dim", int, 0, doc="elements of a head that are turned; even"),
        Attribute("rotary_base", float, 10000.0, doc="pair i turns by base^(-2i / rotary_dim) a position"),
        Attribute("rotary_scaling", str, "none", SCALINGS, doc="how longer sequences than trained are reached"),
        Attribute("rotary_factor", float, 1.0, doc="how much longer"),
        Attribute("rotary_max_positions", int, 0, doc="the trained length (dynamic, yarn, llama3)"),
        Attribute("rotary_low", float, 0.0, doc="turns over the trained length below which pairs are stretched"),
        Attribute("rotary_high", float, 0.0, doc="and above which they are kept (yarn, llama3)"),
        Attribute("rotary_magnitude", float, 0.0, doc="factor on cos and sin; 0: the scaling's own"),
        Attribute("rotary_rounded", bool, True, doc="yarn: borders between pairs are whole numbers"),
        Attribute(
            "max_distance", int, 0, doc="relative: distances from here on share T5's last bucket; 0: by position"
        ),
        Attribute("window", int, 0, doc="a query sees this many last keys, itself among them; 0: all"),
        Attribute("sinks", int, 0, doc="first keys that stay visible beside the window"),
        Attribute("softcap", float, 0.0, doc="c tanh(logits / c) before biases and masks; 0: none"),
        Attribute(
            "tokens_each",
            int,
            0,
            doc="qkv [T, W] has this many rows for every sequence, those behind query_lengths padding; 0: no gaps",
        ),
        Attribute(
            "multi_block", bool, False, doc="cut the keys of long sequences among threads even where heads suffice"
        ),
    ),
    reference=reference,
    kernels=(*cpu.KERNELS, *gpu.KERNELS),
    cases=cases,
    infer=infer,
    cost=cost,
    check=check,
    types={"T": FLOATS, "C": (*FLOATS, *QUANTISED)},
    updates={"present": "past"},
    source="https://nvidia.github.io/TensorRT-LLM/advanced/gpt-attention.html",
)
