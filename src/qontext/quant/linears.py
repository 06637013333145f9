"""The pass that turns linear layers into eight-bit ones."""

import onnx_ir as ir
import torch

from ..graph.attributes import attributes_of, values_of
from ..graph.ledger import ids_of, origin_of, set_ids, set_origin
from ..graph.tensors import constant_of
from ..ops.declare import DOMAIN
from .grouped import group_refusal, in_groups
from .held import HeldWeights, add_weight, drop_unread
from .recipe import BY_ROW, IMPORTED, IN_FLOATS, QuantLayer, Recipe, StaticScale, in_words
from .weights import FP8


def quantise_linears(graph: ir.Graph, recipe: Recipe) -> list[QuantLayer]:
    """Turns every Linear with a constant float32 weight into a QuantLinear, except those that the recipe keeps.

    Layers that share a weight share the quantised one; those that the model brought along stay as they are. Returns
    what became of every linear layer, in order. Raises ArgumentError for a weight with a NaN or an infinity.
    """
    layers = []
    made = HeldWeights(graph, recipe)
    for node in list(graph):
        if node.op_type not in ("Linear", "QuantLinear") or node.domain != DOMAIN:
            continue
        weight = constant_of(node.inputs[1])
        shape = None if node.inputs[1] is None else node.inputs[1].shape
        operations = 2.0 * (weight.numel() if weight is not None else 0)
        name, origin = str(node.name), origin_of(node)
        outliers = recipe.outliers.get(name, 0.0)
        if node.op_type == "QuantLinear":
            imported = "int8" if weight is None or weight.dtype == torch.int8 else FP8
            layers.append(QuantLayer(name, origin, imported, IMPORTED, operations))
            continue
        reason = recipe.kept.get(name) or _unfit(node, weight)
        if reason is None and recipe.group and weight is not None:
            reason = group_refusal(weight, recipe.group)
        if reason is not None:
            layers.append(QuantLayer(name, origin, "float", "", operations, reason, None, False, outliers))
            continue
        assert weight is not None and shape is not None
        static = recipe.scales.get(name)
        factors = recipe.smoothing.get(name)
        if recipe.weights_only:
            if recipe.group:
                in_groups(graph, node, made)
                layers.append(
                    QuantLayer(name, origin, "int4", in_words(recipe.group), operations, "", None, False, outliers)
                )
                continue
            _weights_only(graph, node, made)
            layers.append(QuantLayer(name, origin, "int8", IN_FLOATS, operations, "", None, False, outliers))
            continue
        _replace(graph, node, static, factors, made, recipe.kind)
        layers.append(
            QuantLayer(name, origin, recipe.kind, _source(static), operations, "", None, factors is not None, outliers)
        )
    made.note(layers)
    return layers


def _source(static: StaticScale | None) -> str:
    """Where the scale of what a layer reads comes from, in words."""
    if static is None:
        return BY_ROW
    zero = "" if static.zero is None else f", zero {static.zero}"
    return f"{static.scale:.4g}{zero} ({static.source})"


def _unfit(node: ir.Node, weight: torch.Tensor | None) -> str | None:
    """Why a layer cannot be quantised, None when it can."""
    if weight is None:
        return "its weight is computed at run time"
    if weight.dtype != torch.float32:
        return f"its weight is {str(weight.dtype).removeprefix('torch.')}, only float32 weights are quantised"
    if 0 in weight.shape:
        return "its weight is empty"
    if any(v is not None for v in node.inputs[4:7]):
        return "it has scales already"
    return None


def _replace(
    graph: ir.Graph,
    node: ir.Node,
    static: StaticScale | None,
    smoothing: torch.Tensor | None,
    made: HeldWeights,
    kind: str,
) -> None:
    source = node.inputs[1]
    assert source is not None
    inputs: list[ir.Value | None] = [
        node.inputs[0],
        *made.of(node, kind, smoothing),
        *[node.inputs[i] if i < len(node.inputs) else None for i in (2, 3)],
    ]
    if static is not None or smoothing is not None:
        inputs += [None, None]
    if static is not None:
        inputs[5] = add_weight(graph, f"{node.name}/x_scale", torch.tensor(static.scale))
        if static.zero is not None:
            inputs[6] = add_weight(graph, f"{node.name}/x_zero", torch.tensor(static.zero, dtype=torch.uint8))
    if smoothing is not None:
        inputs.append(add_weight(graph, f"{node.name}/x_factor", 1.0 / smoothing))
    attributes = attributes_of(values_of(node))
    quantised = ir.Node(DOMAIN, "QuantLinear", inputs, attributes, num_outputs=1, name=node.name)
    set_origin(quantised, origin_of(node))
    set_ids(quantised, ids_of(node))
    out, old = quantised.outputs[0], node.outputs[0]
    out.name, out.type, out.shape = old.name, old.type, old.shape
    graph.insert_after(node, quantised)
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    old.name = f"{old.name}/float"
    graph.remove(node, safe=True)
    drop_unread(graph, source)


def _weights_only(graph: ir.Graph, node: ir.Node, made: HeldWeights) -> None:
    """Gives a Linear an int8 weight with its scales."""
    source = node.inputs[1]
    assert source is not None
    levels, scales = made.of(node, "int8")
    node.resize_inputs(6)
    node.replace_input_with(1, levels)
    node.replace_input_with(5, scales)
    drop_unread(graph, source)
