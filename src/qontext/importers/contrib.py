"""Foreign operators turned into ours or standard ones: ONNX Runtime's `com.microsoft` and TensorRT's BERT plugins.

Each converter reads everything a node says. What is left over, and what cannot be honoured, is an error that names it:
nothing is dropped in silence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..errors import GraphError, QontextError
from ..graph.ledger import Ledger
from ..ops.infer import Inference
from . import contrib_attention, contrib_elementwise, contrib_norm, contrib_tensorrt
from .contrib_site import Site

Convert = Callable[[Site], Sequence[ir.Value | None]]

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Family:
    """Where operators come from, for reports, and their converters by op_type."""

    name: str
    converters: dict[str, Convert]


_MICROSOFT = Family(
    "ONNX Runtime",
    {
        "Attention": contrib_attention.attention,
        "BiasGelu": contrib_elementwise.bias_gelu,
        "EmbedLayerNormalization": contrib_norm.embed_layer_normalization,
        "FastGelu": contrib_elementwise.fast_gelu,
        "FusedGemm": contrib_elementwise.fused_gemm,
        "FusedMatMul": contrib_elementwise.fused_matmul,
        "Gelu": contrib_elementwise.gelu,
        "MultiHeadAttention": contrib_attention.multi_head_attention,
        "QuickGelu": contrib_elementwise.quick_gelu,
        "RotaryEmbedding": contrib_attention.rotary_embedding,
        "SkipLayerNormalization": contrib_norm.skip_layer_normalization,
        "SkipSimplifiedLayerNormalization": contrib_norm.skip_simplified_layer_normalization,
    },
)
# ONNX Runtime writes this one into the domain of the standard, which does not have it.
_NEAR_STANDARD = Family("ONNX Runtime", {"SimplifiedLayerNormalization": contrib_norm.simplified_layer_normalization})
# A TensorRT plugin is known by its name; exporters disagree about the domain.
_TENSORRT = Family(
    "TensorRT",
    {
        "CustomEmbLayerNormPluginDynamic": contrib_tensorrt.emb_layer_norm,
        "CustomFCPluginDynamic": contrib_tensorrt.fully_connected,
        "CustomGeluPluginDynamic": contrib_tensorrt.gelu,
        "CustomQKVToContextPluginDynamic": contrib_tensorrt.qkv_to_context,
        "CustomSkipLayerNormPluginDynamic": contrib_tensorrt.skip_layer_norm,
        "GroupNormalizationPlugin": contrib_tensorrt.group_norm,
    },
)


def family_of(node: ir.Node) -> Family | None:
    """Whose operator a node is, None when nobody here converts it."""
    if node.op_type in _TENSORRT.converters and node.domain != MICROSOFT:
        return _TENSORRT
    for family, domain in ((_MICROSOFT, MICROSOFT), (_NEAR_STANDARD, "")):
        if node.domain == domain and node.op_type in family.converters:
            return family
    return None


def convert(node: ir.Node, family: Family, graph: ir.Graph, inference: Inference, ledger: Ledger) -> list[ir.Node]:
    """Puts nodes that qontext knows in the place of a foreign one and infers them.

    Returns:
        The new nodes, in order.
    Raises:
        UnsupportedOperatorError: an input, output or attribute that cannot be honoured.
        GraphError, ShapeError: operands that do not fit.
    """
    site = Site(node, graph, inference)
    try:
        results = family.converters[node.op_type](site)
        site.refuse_leftovers()
    except QontextError as error:
        if repr(node.name) in error.message:
            raise
        raise type(error)(f"node {node.name!r} ({node.op_type} of {family.name}): {error.message}") from error
    for i, old in enumerate(node.outputs):
        if not old.uses() and not old.is_graph_output():
            continue
        new = results[i] if i < len(results) else None
        if new is None:
            raise site.refusal(f"output {i} ({old.name!r}) is read by the graph")
        if new.producer() is None:
            raise GraphError(f"node {node.name!r} ({node.op_type}): its result {old.name!r} is no computed value")
        if old.is_graph_output():
            new.name, old.name = old.name, f"{old.name}/before"
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    ledger.fuse(f"import from {family.name}", [node], site.main())
    graph.remove(node, safe=True)
    return site.added
