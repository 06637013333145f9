"""Declaration of Attention: separate queries, keys and values, self and cross, with grouped heads and a past."""

from ...dtypes import FLOATS
from ..attention_common import mask_operand
from ..attention_common.layouts import ATTENTION_LAYOUTS
from ..declare import Attribute, Op, Param
from .body import body
from .cases import cases
from .cpu import KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference
from .rules import check, cost, infer

_ADDED = "float32|float16|bfloat16"
_INDEX = "int32|int64"

OP = Op(
    name="Attention",
    doc="softmax(scale Q K^T + masks) V for every head, with the meaning of ONNX Attention 23 to 25.",
    inputs=(
        Param("query", "any", doc="in the shape of the attribute 'layout'"),
        Param("key", "any", doc="the same with Skv and Nkv"),
        Param("value", "any", doc="the same with Skv, Nkv and Dv"),
        Param(
            "mask",
            "any",
            mask_operand.TYPES,
            optional=True,
            doc=f"{mask_operand.doc('S', 'Skv')}; Skv counts the past",
        ),
        Param(
            "bias",
            "any",
            _ADDED,
            optional=True,
            doc="[B|1, N|1, S|1, Skv], added to the scaled logits; may be larger in the last two",
        ),
        Param("past_key", "B Nkv past D", optional=True, doc="keys before the new ones"),
        Param("past_value", "B Nkv past Dv", optional=True, doc="values before the new ones"),
        Param("key_lengths", "B", _INDEX, optional=True, doc="valid keys of each sequence; the last query is the last"),
        Param(
            "cu_seqlens_q",
            "B+1",
            "int32",
            optional=True,
            doc="packed: where each sequence's queries begin, and the end",
        ),
        Param("cu_seqlens_kv", "B+1", "int32", optional=True, doc="packed: the same of keys, when they are others"),
        Param("max_seqlen_q", "", "int32", optional=True, host=True, doc="packed: most queries of a sequence"),
        Param("max_seqlen_kv", "", "int32", optional=True, host=True, doc="packed: most keys of a sequence"),
        Param("prefix_lengths", "B", _INDEX, optional=True, doc="kind 'prefix': keys that every query sees"),
    ),
    outputs=(
        Param("context", "any", doc="in the layout of the query, with Dv"),
        Param("present_key", "B Nkv Skv D", optional=True, doc="past and new keys"),
        Param("present_value", "B Nkv Skv Dv", optional=True, doc="past and new values"),
        Param("scores", "B N S Skv", optional=True, doc="what 'scores_mode' says"),
    ),
    attributes=(
        Attribute("num_heads", int, 0, doc="query heads N; 0 where the layout has an axis of them"),
        Attribute("num_kv_heads", int, 0, doc="key and value heads Nkv; 0: as many, or the layout's axis"),
        Attribute("scale", float, 0.0, doc="factor on the logits; 0: 1/sqrt(D)"),
        Attribute(
            "kind",
            str,
            "full",
            ("full", "causal", "prefix"),
            doc="causal: query i sees keys up to i + (past length, or key_lengths - S); prefix: and all of the prefix",
        ),
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
        Attribute("layout", str, "B S (N D)", ATTENTION_LAYOUTS, doc="the order of the axes of query, key and value"),
        Attribute(
            "scores_mode",
            str,
            "scaled",
            ("scaled", "capped", "masked", "probs"),
            doc="the logits times scale, after the soft cap, after masks and bias, or the probabilities",
        ),
    ),
    reference=reference,
    kernels=(*KERNELS, *GPU_KERNELS),
    cases=cases,
    infer=infer,
    cost=cost,
    body=body,
    check=check,
    types={"T": FLOATS},
    source="https://onnx.ai/onnx/operators/onnx__Attention.html",
)
