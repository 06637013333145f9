"""Declaration of QKVToContext: from a fused projection to the context, in any layout."""

from ...dtypes import FLOATS
from ..attention_common import mask_operand
from ..attention_common.layouts import QKV_LAYOUTS
from ..declare import Attribute, Op, Param
from ..eight_bits import KINDS, NONE
from .body import body
from .cases import cases
from .cpu import KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference
from .rules import check, cost, infer

_ADDED = "float32|float16|bfloat16"
_INDEX = "int32|int64"

OP = Op(
    name="QKVToContext",
    doc="softmax(scale Q K^T + masks) V for every head, with Q, K and V cut out of one fused projection.",
    inputs=(
        Param("qkv", "...", doc="the fused projection; its shape is what the attribute 'layout' says"),
        Param("lengths", "B", _INDEX, optional=True, doc="valid keys of each sequence, the first ones"),
        Param("mask", "any", mask_operand.TYPES, optional=True, doc=mask_operand.doc("S", "S")),
        Param(
            "bias",
            "any",
            _ADDED,
            optional=True,
            doc="[B|1, N|1, S|1, S], added to the scaled logits; may be larger in the last two",
        ),
        Param("cu_seqlens", "B+1", "int32", optional=True, doc="packed: where each sequence begins, and the end"),
        Param("max_seqlen", "", "int32", optional=True, host=True, doc="packed: the longest sequence"),
        Param("prefix_lengths", "B", _INDEX, optional=True, doc="kind 'prefix': keys that every query sees"),
        Param("context_scale", "", "float32", optional=True, doc="static, of a context in eight bits"),
        Param("context_zero", "", "uint8", optional=True, doc="the byte that stands for 0 in a context in int8"),
        Param("context_factor", "any", "float32", optional=True, doc="[N*D], columns are multiplied by it first"),
    ),
    outputs=(
        Param(
            "context",
            "...",
            "|".join((*FLOATS, *KINDS)),
            doc="[B, S, N*D], [T, N*D], [S, B, N*D] or [S, B, N*D, 1, 1], as 'layout' says",
        ),
        Param("scores", "B N S S", optional=True, doc="scaled, capped and masked logits before the softmax"),
        Param("values", "B Nkv S D", optional=True, doc="the value states, before attention"),
    ),
    attributes=(
        Attribute("num_heads", int, doc="query heads N"),
        Attribute("num_kv_heads", int, 0, doc="key and value heads Nkv; 0: as many as query heads"),
        Attribute("layout", str, choices=QKV_LAYOUTS, doc="the order of the axes of 'qkv'"),
        Attribute("scale", float, 0.0, doc="factor on the logits; 0: 1/sqrt(D)"),
        Attribute("kind", str, "full", ("full", "causal", "prefix"), doc="prefix: causal, but all see the prefix"),
        Attribute(
            "empty_row",
            str,
            "zeros",
            ("zeros", "uniform", "as_unmasked"),
            doc="what a query that attends to nothing gets: zeros, the mean of all values, attention without masks",
        ),
        mask_operand.MEANS,
        Attribute("softcap", float, 0.0, doc="c * tanh(logits / c) before the masks; 0: none"),
        Attribute("window_left", int, -1, doc="keys up to this far before the query; -1: all"),
        Attribute("window_right", int, -1, doc="keys up to this far after the query; -1: all"),
        Attribute("eight_bits", str, NONE, (NONE, *KINDS), doc="what the context is held in, for the next product"),
    ),
    reference=reference,
    kernels=(*KERNELS, *GPU_KERNELS),
    cases=cases,
    infer=infer,
    cost=cost,
    body=body,
    check=check,
    types={"T": FLOATS},
    source="https://github.com/NVIDIA/TensorRT/tree/main/plugin/bertQKVToContextPlugin",
)
