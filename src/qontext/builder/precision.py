"""Lowering float32 compute to bf16 or fp16: weights and activations change their type, inputs and outputs do not."""

import onnx_ir as ir
import torch

from ..dtypes import by_name
from ..graph.attributes import attributes_of, values_of
from ..graph.ledger import set_origin
from ..graph.tensors import constant_of, to_onnx

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def lower_precision(graph: ir.Graph, precision: str) -> int:
    """Turns every float32 weight, constant and cast of a graph into `precision`; returns how many weights changed.

    Float inputs are cast on entry, float outputs back to the type they were declared with, so callers see no change.
    Constants beyond the range of the target (mask fills such as -3.4e38) become its largest finite number, and
    infinities stay infinities. Types of values are to be inferred anew afterwards.
    """
    kind = by_name(PRECISIONS[precision])
    if kind.name == "float32":
        return 0
    changed = 0
    for name, value in graph.initializers.items():
        tensor = constant_of(value)
        if tensor is not None and tensor.dtype == torch.float32:
            value.const_value = to_onnx(narrow(tensor, kind.torch), name)
            value.dtype = kind.onnx
            value.meta.pop("torch", None)
            changed += 1
    for node in graph:
        _retype(node, kind.torch, kind.onnx)
    for value in graph.inputs:
        if value.dtype == ir.DataType.FLOAT and value.uses():
            _cast_input(graph, value, kind.onnx)
    for i, value in enumerate(list(graph.outputs)):
        if value.dtype == ir.DataType.FLOAT:
            _cast_output(graph, i, value)
    return changed


def narrow(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in a narrower float type; finite values stay finite."""
    limit = torch.finfo(dtype).max
    out = tensor.to(dtype)
    lost = torch.isinf(out) & ~torch.isinf(tensor)
    return torch.where(lost, torch.sign(tensor).to(dtype) * limit, out) if bool(lost.any()) else out


def _retype(node: ir.Node, dtype: torch.dtype, onnx_type: ir.DataType) -> None:
    """Lets Cast-like attributes and tensor attributes of float32 follow the lower precision."""
    attributes = values_of(node)
    touched = False
    if node.op_type == "Cast" and attributes.get("to") == int(ir.DataType.FLOAT):
        attributes["to"], touched = int(onnx_type), True
    for name, value in attributes.items():
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            attributes[name], touched = narrow(value, dtype), True
    if node.op_type == "Constant" and ("value_float" in attributes or "value_floats" in attributes):
        number = attributes.get("value_float", attributes.get("value_floats"))
        attributes, touched = {"value": narrow(torch.tensor(number, dtype=torch.float32), dtype)}, True
    if touched:
        node.attributes.clear()
        for attribute in attributes_of(attributes):
            node.attributes[attribute.name] = attribute
        for value in node.outputs:
            value.meta.pop("torch", None)


def _cast_input(graph: ir.Graph, value: ir.Value, to: ir.DataType) -> None:
    readers = list(value.uses())
    node = ir.Node(
        "", "Cast", [value], attributes_of({"to": int(to)}), num_outputs=1, name=f"precision/in/{value.name}"
    )
    node.outputs[0].name = node.name
    set_origin(node, "precision")
    for user, index in readers:
        user.replace_input_with(index, node.outputs[0])
    graph.insert_before(next(iter(graph)), node)


def _cast_output(graph: ir.Graph, index: int, value: ir.Value) -> None:
    producer = value.producer()
    if producer is None:
        return
    node = ir.Node("", "Cast", [value], attributes_of({"to": int(ir.DataType.FLOAT)}), num_outputs=1)
    node.name = f"precision/out/{value.name}"
    set_origin(node, "precision")
    node.outputs[0].name, value.name = value.name, f"{value.name}/low"
    node.outputs[0].dtype, node.outputs[0].shape = ir.DataType.FLOAT, value.shape
    graph.append(node)
    graph.outputs[index] = node.outputs[0]
