"""Linear layers become GroupLinear: weights of four bits, products of floats."""

import onnx_ir as ir
import torch

from ..graph.attributes import attributes_of, values_of
from ..graph.ledger import ids_of, origin_of, set_ids, set_origin
from ..ops.declare import DOMAIN
from .held import HeldWeights, drop_unread


def group_refusal(weight: torch.Tensor, group: int) -> str | None:
    """Why a weight cannot be held in groups, None when it can."""
    columns = weight.shape[1]
    if columns % group:
        return f"its weight has {columns} columns, which are no whole groups of {group}"
    return None


def in_groups(graph: ir.Graph, node: ir.Node, made: HeldWeights) -> None:
    """Puts a GroupLinear in place of a Linear; layers that share a weight share the packed one.

    Raises ArgumentError for a weight that holds a NaN or an infinity.
    """
    source, old = node.inputs[1], node.outputs[0]
    assert source is not None
    rest = [node.inputs[i] if i < len(node.inputs) else None for i in (2, 3)]
    attributes = attributes_of({"activation": values_of(node).get("activation", "none")})
    inputs = [node.inputs[0], *made.of(node, "int4"), *rest]
    grouped = ir.Node(DOMAIN, "GroupLinear", inputs, attributes, num_outputs=1, name=node.name)
    set_origin(grouped, origin_of(node))
    set_ids(grouped, ids_of(node))
    out = grouped.outputs[0]
    out.name, out.type, out.shape = old.name, old.type, old.shape
    graph.insert_after(node, grouped)
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    old.name = f"{old.name}/float"
    graph.remove(node, safe=True)
    drop_unread(graph, source)
