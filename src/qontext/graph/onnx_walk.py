"""Walking an ONNX protobuf without recursion: graphs, function bodies, sub-graphs, and every tensor in them.

A hostile file may nest sub-graphs thousands of levels deep, so nothing here calls itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

MAX_DEPTH = 32


@dataclass(frozen=True)
class Scope:
    """A list of nodes that share one name space.

    where:    for messages: "the graph", "function local::Gelu", "a sub-graph of node 'if_1' (If)"
    nodes:    the nodes in the order of the file
    graph:    the graph that holds them, None for a function body
    function: the function whose body they are, None for a graph
    depth:    0 for the graph of the model and for function bodies
    """

    where: str
    nodes: Sequence[onnx.NodeProto]
    graph: onnx.GraphProto | None = None
    function: onnx.FunctionProto | None = None
    depth: int = 0


@dataclass(frozen=True)
class Found:
    """A tensor of the file: `where` it stands, and whether it is one part of a sparse tensor."""

    where: str
    tensor: onnx.TensorProto
    sparse: bool = False


def function_label(function: onnx.FunctionProto) -> str:
    """domain::name, with the overload where there is one."""
    overload = f":{function.overload}" if function.overload else ""
    return f"{function.domain}::{function.name}{overload}"


def node_label(node: onnx.NodeProto, index: int) -> str:
    """A node as messages name it: "node 'matmul_3' (MatMul)", by position where it has no name."""
    return f"node {node.name!r} ({node.op_type})" if node.name else f"node {index} ({node.op_type})"


def scopes(model: onnx.ModelProto) -> Iterator[Scope]:
    """The graph, every function body and every sub-graph, level by level, down to one level below `MAX_DEPTH`."""
    pending = [Scope("the graph", model.graph.node, graph=model.graph)]
    pending += [Scope(f"function {function_label(f)}", f.node, function=f) for f in model.functions]
    while pending:
        scope = pending.pop()
        yield scope
        if scope.depth > MAX_DEPTH:
            continue
        for index, node in enumerate(scope.nodes):
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.HasField("g") else []
                for graph in (*inner, *attribute.graphs):
                    where = f"a sub-graph of {node_label(node, index)}"
                    pending.append(Scope(where, graph.node, graph=graph, depth=scope.depth + 1))


def tensors(scope: Scope) -> Iterator[Found]:
    """Every tensor of a scope: initializers, sparse initializers, tensors in attributes and attribute defaults."""
    if scope.graph is not None:
        for tensor in scope.graph.initializer:
            yield Found(f"weight {tensor.name!r}", tensor)
        for sparse in scope.graph.sparse_initializer:
            yield from _parts(f"sparse weight {sparse.values.name!r}", sparse)
    if scope.function is not None:
        for attribute in scope.function.attribute_proto:
            yield from _of_attribute(f"default of {scope.where}", attribute)
    for index, node in enumerate(scope.nodes):
        for attribute in node.attribute:
            yield from _of_attribute(node_label(node, index), attribute)


def _of_attribute(owner: str, attribute: onnx.AttributeProto) -> Iterator[Found]:
    where = f"attribute {attribute.name!r} of {owner}"
    if attribute.HasField("t"):
        yield Found(where, attribute.t)
    for tensor in attribute.tensors:
        yield Found(where, tensor)
    if attribute.HasField("sparse_tensor"):
        yield from _parts(where, attribute.sparse_tensor)
    for sparse in attribute.sparse_tensors:
        yield from _parts(where, sparse)


def _parts(where: str, sparse: onnx.SparseTensorProto) -> Iterator[Found]:
    yield Found(f"the values of {where}", sparse.values, sparse=True)
    yield Found(f"the indices of {where}", sparse.indices, sparse=True)
