"""Runs a graph node by node with the references: what a graph means, before and after a rule.

Standard operators come from the catalogue of standard operators, declared ones from their references. Nothing here
knows kernels, plans or layouts of memory.
"""

from collections.abc import Mapping

import onnx_ir as ir
import torch

from qontext.graph.attributes import values_of
from qontext.graph.ledger import Ledger
from qontext.graph.tensors import constant_of
from qontext.graph.verify import verify
from qontext.ops.catalogue import BY_NAME as OPS
from qontext.ops.declare import Op
from qontext.ops.infer import Inference
from qontext.ops.standard.catalogue import lookup
from qontext.ops.standard.declare import Context

Feeds = Mapping[str, torch.Tensor]


def run_graph(graph: ir.Graph, feeds: Feeds, ops: Mapping[str, Op] = OPS) -> dict[str, torch.Tensor]:
    """The outputs of a graph by name, for its inputs by name."""
    values = {value: feeds[value.name] for value in graph.inputs if value.name in feeds}
    for node in graph:
        operands = [None if v is None or not v.name else _operand(values, v) for v in node.inputs]
        results = _run(graph, node, operands, ops)
        for value, tensor in zip(node.outputs, results, strict=False):
            if tensor is not None:
                values[value] = tensor
    return {value.name: _operand(values, value) for value in graph.outputs}


def _operand(values: Mapping[ir.Value, torch.Tensor], value: ir.Value) -> torch.Tensor:
    tensor = values[value] if value in values else constant_of(value)
    assert tensor is not None, f"{value.name} has no value"
    return tensor


def _run(graph, node, operands, ops):
    op = ops.get(node.op_type)
    if op is not None and op.domain == node.domain:
        op.infer_outputs(
            [None if t is None else _described(t) for t in operands], op.complete_attributes(values_of(node))
        )
        result = op.reference(*operands, **op.complete_attributes(values_of(node)))
    else:
        wanted = tuple(bool(v.name) for v in node.outputs)
        context = Context(graph.opset_imports.get("", 23), wanted)
        result = lookup(node.op_type).run(operands, values_of(node), context)
    return result if isinstance(result, tuple) else (result,)


def _described(tensor):
    from qontext.ops.declare import operand_of

    return operand_of(tensor)


def known(node: ir.Node) -> bool:
    """Says whether a node's operator exists."""
    op = OPS.get(node.op_type)
    if op is not None and op.domain == node.domain:
        return True
    return node.domain == "" and lookup(node.op_type) is not None


def inferred(graph: ir.Graph) -> Inference:
    """A finished inference."""
    inference = Inference(OPS, graph.opset_imports.get("", 23))
    inference.run(graph)
    return inference


def adopted(graph: ir.Graph) -> Ledger:
    """A ledger that numbers all nodes of a graph."""
    ledger = Ledger()
    ledger.adopt(graph)
    return ledger


def check_border(graph: ir.Graph, ledger: Ledger, after: str) -> None:
    """What must hold at every border between rules."""
    verify(graph, known, after=after)
    ledger.check(graph)


def op_counts(graph: ir.Graph) -> dict[str, int]:
    """How many nodes of each operator a graph has."""
    counts: dict[str, int] = {}
    for node in graph:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts
