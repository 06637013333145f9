"""The pass that turns attention into attention in eight bits."""

from collections.abc import Sequence

import onnx_ir as ir
import torch

from ..graph.attributes import attributes_of, values_of
from ..graph.ledger import ids_of, origin_of, set_ids, set_origin
from ..graph.tensors import to_onnx
from ..ops.declare import DOMAIN
from ..ops.quant_qkv_to_context.rules import QKV_SCALE
from .recipe import IN_BYTES, QuantLayer, Recipe, StaticScale

_MOST = 127.0
_LEAST = 1e-30


def attention_nodes(graph: ir.Graph) -> list[ir.Node]:
    """Every attention of a graph, those in eight bits included, in order."""
    kinds = ("QKVToContext", "QuantQKVToContext", "Attention", "GptAttention")
    return [node for node in graph if node.domain == DOMAIN and node.op_type in kinds]


def quantise_attention(graph: ir.Graph, recipe: Recipe) -> list[QuantLayer]:
    """Turns every QKVToContext into a QuantQKVToContext, except those that the recipe keeps.

    Scales are those of the recipe's magnitudes of Q, K and V, else found at run time. Returns what became of every
    attention, in order.
    """
    layers = []
    for node in attention_nodes(graph):
        name = str(node.name)
        if node.op_type == "QuantQKVToContext":
            layers.append(_layer(node, str(values_of(node).get("eight_bits", "int8")), "of the imported model"))
            continue
        reason = recipe.kept.get(name) or _unfit(node)
        if reason is not None:
            layers.append(_layer(node, "float", "", reason))
            continue
        found = recipe.magnitudes.get(name)
        _replace(graph, node, recipe.kind, None if found is None else scales_of(found, recipe.kind))
        source = (
            IN_BYTES if found is None else f"Q, K, V up to {', '.join(f'{m:.4g}' for m in found)} ({recipe.source})"
        )
        layers.append(_layer(node, recipe.kind, source))
    return layers


def _layer(node: ir.Node, held: str, scale: str, kept: str = "") -> QuantLayer:
    return QuantLayer(str(node.name), origin_of(node), held, scale, 0.0, kept, what="attention")


def scales_of(magnitudes: Sequence[float], kind: str) -> torch.Tensor:
    """What 1 stands for in Q, K and V of these magnitudes, float32: [3], so that they become 127 in int8; one number in
    float8_e4m3, which is as exact in its middle, and which the projection can write in one pass."""
    if kind != "int8":
        return torch.tensor(StaticScale.of_range(0.0, max(magnitudes), "", kind).scale)
    return torch.tensor([m / _MOST if m > _LEAST else 1.0 for m in magnitudes], dtype=torch.float32)


def _unfit(node: ir.Node) -> str | None:
    """Why an attention cannot be quantised, None when it can."""
    if node.op_type != "QKVToContext":
        return f"it is a {node.op_type}; attention in eight bits reads one fused projection (QKVToContext)"
    extra = [v.name for v in node.outputs[1:] if v.name]
    return f"its further outputs {extra} are wanted" if extra else None


def _replace(graph: ir.Graph, node: ir.Node, kind: str, scales: torch.Tensor | None) -> None:
    inputs = list(node.inputs)[:QKV_SCALE]
    if scales is not None:
        held = to_onnx(scales, f"{node.name}/qkv_scale")
        value = ir.Value(name=held.name, const_value=held, type=ir.TensorType(held.dtype), shape=ir.Shape(scales.shape))
        graph.register_initializer(value)
        inputs += [None] * (QKV_SCALE - len(inputs)) + [value]
    settings = {**values_of(node), "eight_bits": kind}
    made = ir.Node(DOMAIN, "QuantQKVToContext", inputs, attributes_of(settings), num_outputs=1, name=node.name)
    set_origin(made, origin_of(node))
    set_ids(made, ids_of(node))
    out, old = made.outputs[0], node.outputs[0]
    out.name, out.type, out.shape = old.name, old.type, old.shape
    graph.insert_after(node, made)
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    old.name = f"{old.name}/float"
    graph.remove(node, safe=True)
