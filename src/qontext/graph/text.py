"""A graph as people read it: one line a node."""

from dataclasses import replace

import onnx_ir as ir
import torch

from ..dtypes import from_onnx
from .attributes import values_of
from .dims import from_onnx as dims_from_onnx
from .dims import text
from .ledger import Ledger, ids_of, origin_of


def type_text(value: ir.Value) -> str:
    """dtype and shape of a value: "float32[B, S, 768]"."""
    try:
        dtype = from_onnx(value.dtype).name if value.dtype is not None else "?"
    except KeyError:
        dtype = value.dtype.name.lower() if value.dtype is not None else "?"
    return f"{dtype}{text(dims_from_onnx(value.shape))}"


def attribute_text(node: ir.Node) -> str:
    """The attributes of a node: "num_heads=12, layout='T (three N D)'"."""
    parts = []
    for name, value in values_of(node).items():
        shown = f"tensor{list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
        parts.append(f"{name}={shown}")
    return ", ".join(parts)


def node_text(node: ir.Node) -> str:
    """One line: outputs = Operator(inputs; attributes)  types."""
    outputs = ", ".join(f"%{v.name}" for v in node.outputs if v.name)
    inputs = ", ".join("_" if v is None else f"%{v.name}" for v in node.inputs)
    attributes = attribute_text(node)
    types = ", ".join(type_text(v) for v in node.outputs if v.name)
    return f"{outputs} = {node.op_type}({inputs}{'; ' + attributes if attributes else ''})  # {types}"


def graph_text(graph: ir.Graph, origins: bool = False) -> str:
    """The whole graph. With `origins`, each line ends with the module path it comes from."""
    lines = [f"graph {graph.name}("]
    lines += [f"  %{v.name}: {type_text(v)}" for v in graph.inputs]
    lines.append(f")  # {len(graph.initializers)} weights, {graph.num_nodes()} nodes")
    for node in graph:
        lines.append("  " + node_text(node) + (f"  <- {origin_of(node)}" if origins else ""))
    lines.append("return " + ", ".join(f"%{v.name}" for v in graph.outputs))
    return "\n".join(lines)


def note_types(ledger: Ledger, graph: ir.Graph) -> None:
    """Writes the types of the results of imported nodes into the ledger, once inference has found them."""
    for node in graph:
        for number in ids_of(node)[:1]:
            shown = ", ".join(type_text(v) for v in node.outputs if v.name)
            ledger.sources[number] = replace(ledger.sources[number], type=shown)
