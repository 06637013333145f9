"""Lowering float32 compute to bf16 or fp16: weights and activations change their type, inputs and outputs do not."""

from collections.abc import Callable, Collection, MutableMapping, Set

import onnx_ir as ir
import torch

from ..dtypes import by_name
from ..graph.attributes import attributes_of, values_of
from ..graph.ledger import set_origin
from ..graph.tensors import constant_of, to_onnx

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
EIGHT_BITS = {"int8": "int8", "fp8": "float8_e4m3"}
"""Precisions of linear layers; the rest is in one of PRECISIONS."""


Narrowed = MutableMapping[tuple[object, ...], tuple[torch.Tensor, torch.Tensor]]
"""Weights as they were and narrowed, by where they lie: programs over the same weights share them."""


def lower_precision(
    graph: ir.Graph,
    precision: str,
    kept: Collection[str] = (),
    fixed: Callable[[ir.Node, int], bool] = lambda node, index: False,
    states: Collection[str] = (),
    narrowed: Narrowed | None = None,
) -> int:
    """Turns every float32 weight, constant and cast of a graph into `precision`; returns how many weights changed.

    Float inputs are cast on entry, float outputs back to the type they were declared with, so callers see no change.
    Constants beyond the range of the target (mask fills such as -3.4e38) become its largest finite number, and
    infinities stay infinities. Types of values are to be inferred anew afterwards.

    Args:
        kept: names of nodes that stay in float32, weights and results; casts are put around them.
        fixed: whether an operand is float32 by declaration; weights that only such operands read stay as they are.
        states: inputs and outputs that are updated in place; they take the precision instead of being cast.
        narrowed: weights narrowed for other programs, to be used again and added to.
    """
    narrowed = {} if narrowed is None else narrowed
    kind = by_name(PRECISIONS[precision])
    if kind.name == "float32":
        return 0
    wide = {n for n in graph if n.name in kept}
    wide |= {c for n in wide for c in _constants_of(n) if all(user in wide for user, _ in c.outputs[0].uses())}
    _split_weights(graph, wide)
    changed = 0
    for name, value in graph.initializers.items():
        tensor = constant_of(value)
        if tensor is None or tensor.dtype != torch.float32 or _only_for(value, wide):
            continue
        if not value.uses() or not all(fixed(user, index) for user, index in value.uses()):
            where = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.numel() == 0 and name)
            if where not in narrowed:
                narrowed[where] = (tensor, narrow(tensor, kind.torch))
            value.const_value = to_onnx(narrowed[where][1], name)
            value.type = ir.TensorType(kind.onnx)  # a type of its own: clones of a graph share theirs
            value.meta.pop("torch", None)
            changed += 1
    for node in graph:
        if node not in wide:
            _retype(node, kind.torch, kind.onnx)
    for value in (*graph.inputs, *graph.outputs):
        if value.name in states and value.dtype == ir.DataType.FLOAT:
            value.type = ir.TensorType(kind.onnx)
    for value in graph.inputs:
        if value.dtype == ir.DataType.FLOAT and value.uses():
            _cast_input(graph, value, kind.onnx, wide)
    for i, value in enumerate(list(graph.outputs)):
        if value.name in states:
            continue
        if value.dtype == ir.DataType.FLOAT and value.producer() not in wide:
            _cast_output(graph, i, value)
    _cast_around(graph, wide, kind.onnx)
    return changed


def _constants_of(node: ir.Node) -> list[ir.Node]:
    """The Constant nodes that a node reads."""
    producers = [v.producer() for v in node.inputs if v is not None]
    return [p for p in producers if p is not None and p.op_type == "Constant" and p.domain == ""]


def _only_for(value: ir.Value, wide: Set[ir.Node]) -> bool:
    """Whether a weight is read by nodes that stay wide, and by no other."""
    return bool(value.uses()) and all(user in wide for user, _ in value.uses()) and not value.is_graph_output()


def _split_weights(graph: ir.Graph, wide: Set[ir.Node]) -> None:
    """Gives nodes that stay wide a float32 copy of the weights that they share with others."""
    for name, value in list(graph.initializers.items()):
        tensor = constant_of(value)
        users = [(user, index) for user, index in value.uses() if user in wide]
        if tensor is None or tensor.dtype != torch.float32 or not users or _only_for(value, wide):
            continue
        copy = ir.Value(name=f"{name}/float32", type=value.type, shape=value.shape)
        copy.const_value = to_onnx(tensor, copy.name)
        graph.register_initializer(copy)
        for user, index in users:
            user.replace_input_with(index, copy)


def _cast_around(graph: ir.Graph, wide: Set[ir.Node], low: ir.DataType) -> None:
    """Casts between nodes that stay wide and the others, one for each value and direction."""
    up: dict[ir.Value, ir.Value] = {}
    for node in [n for n in graph if n in wide]:
        for index, value in enumerate(node.inputs):
            producer = None if value is None else value.producer()
            if value is None or producer is None or producer in wide or value.dtype != ir.DataType.FLOAT:
                continue
            if value not in up:
                cast = _cast(value, ir.DataType.FLOAT, f"precision/up/{value.name}")
                graph.insert_after(producer, cast)
                up[value] = cast.outputs[0]
            node.replace_input_with(index, up[value])
        for value in node.outputs:
            readers = [(user, index) for user, index in value.uses() if user not in wide]
            if value.dtype == ir.DataType.FLOAT and readers:
                cast = _cast(value, low, f"precision/down/{value.name}")
                graph.insert_after(node, cast)
                for user, index in readers:
                    user.replace_input_with(index, cast.outputs[0])


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    node = ir.Node("", "Cast", [value], attributes_of({"to": int(to)}), num_outputs=1, name=name)
    node.outputs[0].name = name
    set_origin(node, "precision")
    return node


def with_readers(graph: ir.Graph, names: Collection[str]) -> list[str]:
    """Names of nodes and of those that read their results, in order: what is too large for a type is read wide too."""
    chosen = [n for n in graph if n.name in names]
    readers = {user for n in chosen for v in n.outputs for user, _ in v.uses()}
    return [str(n.name) for n in graph if n in readers or n in chosen]


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


def _cast_input(graph: ir.Graph, value: ir.Value, to: ir.DataType, wide: Set[ir.Node]) -> None:
    readers = [(user, index) for user, index in value.uses() if user not in wide]
    if not readers:
        return
    node = _cast(value, to, f"precision/in/{value.name}")
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
