"""Linear layers become GroupLinear: weights of four bits, products of floats."""

import onnx_ir as ir
import torch

from ..graph.attributes import attributes_of, values_of
from ..graph.ledger import ids_of, origin_of, set_ids, set_origin
from ..graph.tensors import to_onnx
from ..ops.declare import DOMAIN
from .groups import int4_groups

Made = dict[ir.Value, list[ir.Value]]


def group_refusal(weight: torch.Tensor, group: int) -> str | None:
    """Why a weight cannot be held in groups, None when it can."""
    columns = weight.shape[1]
    if columns % group:
        return f"its weight has {columns} columns, which are no whole groups of {group}"
    return None


def in_groups(graph: ir.Graph, node: ir.Node, weight: torch.Tensor, group: int, made: Made) -> None:
    """Puts a GroupLinear in place of a Linear; layers that share a weight share the packed one.

    Raises ArgumentError for a weight that holds a NaN or an infinity.
    """
    source, old = node.inputs[1], node.outputs[0]
    assert source is not None
    if source not in made:
        names = (f"{source.name}/int4", f"{source.name}/scale", f"{source.name}/zero")
        packed = int4_groups(weight, group, str(source.name))
        made[source] = [_weight(graph, name, tensor) for name, tensor in zip(names, packed, strict=True)]
    rest = [node.inputs[i] if i < len(node.inputs) else None for i in (2, 3)]
    attributes = attributes_of({"activation": values_of(node).get("activation", "none")})
    inputs = [node.inputs[0], *made[source], *rest]
    grouped = ir.Node(DOMAIN, "GroupLinear", inputs, attributes, num_outputs=1, name=node.name)
    set_origin(grouped, origin_of(node))
    set_ids(grouped, ids_of(node))
    out = grouped.outputs[0]
    out.name, out.type, out.shape = old.name, old.type, old.shape
    graph.insert_after(node, grouped)
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    old.name = f"{old.name}/float"
    graph.remove(node, safe=True)
    if not source.uses() and not source.is_graph_output():
        del graph.initializers[str(source.name)]


def _weight(graph: ir.Graph, name: str, tensor: torch.Tensor) -> ir.Value:
    held = to_onnx(tensor, name)
    value = ir.Value(name=name, const_value=held, type=ir.TensorType(held.dtype), shape=ir.Shape(tensor.shape))
    graph.register_initializer(value)
    return value
