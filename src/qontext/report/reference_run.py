"""Running an imported graph node by node with the references: what a model means, before anything was fused."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from ..errors import QontextError, UnsupportedOperatorError
from ..graph.attributes import values_of
from ..graph.tensors import constant_of
from ..ops.declare import Op
from ..ops.standard.catalogue import lookup
from ..ops.standard.declare import Context

Seen = Callable[[ir.Node, Sequence[torch.Tensor | None]], None]


def run_reference(graph: ir.Graph, inputs: Mapping[str, torch.Tensor], ops: Mapping[str, Op], seen: Seen) -> None:
    """Runs a graph on the CPU: references of declared operators in float32, standard operators as they are.

    Values are let go once nobody reads them any more.

    Args:
        inputs: a tensor for every input of the graph, by name.
        ops: declared operators by name.
        seen: called after each node with its results.
    Raises:
        QontextError: a node fails on these inputs; the message names it.
    """
    readers = {value: len(value.uses()) for node in graph for value in node.outputs}
    values: dict[ir.Value, torch.Tensor | None] = {v: inputs[str(v.name)] for v in graph.inputs}
    opset = graph.opset_imports.get("", 23)
    with torch.no_grad():
        for node in graph:
            operands = [None if v is None or v.name == "" else _operand(values, v) for v in node.inputs]
            try:
                results = _run(node, operands, ops, opset)
            except QontextError:
                raise
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise QontextError(f"the reference fails at node {node.name!r} ({node.op_type}): {error}") from error
            seen(node, results)
            values.update(zip(node.outputs, results, strict=False))
            for value in node.inputs:
                if value in readers:
                    readers[value] -= 1
                    if not readers[value]:
                        values.pop(value, None)


def _operand(values: Mapping[ir.Value, torch.Tensor | None], value: ir.Value) -> torch.Tensor | None:
    return values[value] if value in values else constant_of(value)


def _run(
    node: ir.Node, operands: Sequence[torch.Tensor | None], ops: Mapping[str, Op], opset: int
) -> tuple[torch.Tensor | None, ...]:
    op = ops.get(node.op_type)
    result: Any
    if op is not None and op.domain == node.domain:
        wide = [t.float() if t is not None and t.is_floating_point() else t for t in operands]
        result = op.reference(*wide, *[None] * (len(op.inputs) - len(wide)), **op.complete_attributes(values_of(node)))
    else:
        standard = lookup(node.op_type) if node.domain in ("", "ai.onnx") else None
        if standard is None:
            raise UnsupportedOperatorError(f"node {node.name!r}: no reference for {node.domain}::{node.op_type}")
        result = standard.run(operands, values_of(node), Context(opset, tuple(bool(v.name) for v in node.outputs)))
    return result if isinstance(result, tuple) else (result,)
