"""Runs an ONNX model node by node with the catalogue: the one place that knows how the node tests are run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from node_cases import to_torch

from qontext.graph.narrow import write_down_narrow_types
from qontext.ops.standard.catalogue import BY_NAME
from qontext.ops.standard.check import problem
from qontext.ops.standard.declare import Context


def attributes_of(node: ir.Node) -> dict[str, Any]:
    """The attributes as plain Python values, tensors as torch tensors."""
    return {
        name: to_torch(a.value.numpy()) if a.type == ir.AttributeType.TENSOR else a.value
        for name, a in node.attributes.items()
    }


def interpret(model: onnx.ModelProto, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The outputs of the model for inputs in the order of the graph."""
    graph = ir.serde.deserialize_model(model).graph
    write_down_narrow_types(graph)
    values: dict[ir.Value, torch.Tensor] = dict(zip(graph.inputs, inputs, strict=True))
    for initializer in graph.initializers.values():
        values[initializer] = to_torch(initializer.const_value.numpy())
    opset = graph.opset_imports[""]
    for node in graph:
        assert problem(node.op_type, opset, node.attributes) is None
        operands = [None if v is None else values[v] for v in node.inputs]
        wanted = tuple(bool(v.name) for v in node.outputs)
        result = BY_NAME[node.op_type].run(operands, attributes_of(node), Context(opset, wanted))
        results = result if isinstance(result, tuple) else (result,)
        assert len(results) == len(node.outputs), f"{node.op_type}: {len(results)} of {len(node.outputs)} outputs"
        for value, tensor, want in zip(node.outputs, results, wanted, strict=True):
            assert (tensor is not None) or not want, f"{node.op_type}: output {value.name} is missing"
            if tensor is not None:
                values[value] = tensor
    return [values[v] for v in graph.outputs]


def run_model(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The outputs by name for numpy inputs by name."""
    names = [v.name for v in model.graph.input]
    results = interpret(model, [to_torch(inputs[name]) for name in names])
    return {v.name: t for v, t in zip(model.graph.output, results, strict=True)}


def host_inputs(model: onnx.ModelProto) -> set[str]:
    """Names of graph inputs whose values make a shape operand of some node: real while shapes are inferred."""
    producer = {name: node for node in model.graph.node for name in node.output}
    pending = [
        node.input[i] for node in model.graph.node for i in BY_NAME[node.op_type].shape_operands if i < len(node.input)
    ]
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        if name in producer and producer[name].op_type not in ("Shape", "Size"):
            pending += producer[name].input
    return found & {v.name for v in model.graph.input}
