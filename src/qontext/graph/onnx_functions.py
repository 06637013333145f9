"""Local functions of a model put in place of the nodes that call them.

A file may hold functions that call functions that call functions, so that a few lines stand for millions of nodes:
the size of the result is counted before anything is copied, and nothing here calls itself.
"""

from collections.abc import Callable, Collection, Mapping
from graphlib import CycleError, TopologicalSorter

import onnx_ir as ir

from ..errors import GraphError, ModelFormatError
from .onnx_checks import MAX_NODES
from .onnx_walk import MAX_DEPTH

Identifier = tuple[str, str, str]
_LONGEST_NAME = 300


def inline_functions(model: ir.Model, keep: Callable[[str, str], bool]) -> None:
    """Replaces calls of functions by their bodies, in place, and drops the functions.

    Args:
        model: nodes have unique names.
        keep: True for a domain and operator whose nodes stay although the model brings a body for them.
    Raises:
        GraphError: a function calls itself, or is called with more operands than it has.
        ModelFormatError: the result would have too many nodes, or a function imports another opset.
    """
    called = {f.identifier(): f for f in model.functions.values() if not keep(f.domain, f.name)}
    _check_sizes(model.graph, called)
    _check_opsets(model, called.values())
    taken = {str(v.name) for v in (*model.graph.inputs, *model.graph.initializers.values())}
    taken |= {str(v.name) for node in model.graph for v in node.outputs}
    taken |= {str(node.name) for node in model.graph}
    for node in list(model.graph):
        if node.op_identifier() in called:
            _expand(model.graph, node, called, taken)
    for node in model.graph:
        node.overload = ""
    model.functions.clear()


def _check_sizes(graph: ir.Graph, functions: Mapping[Identifier, ir.Function]) -> None:
    """Counts the nodes that there will be, function by function, those without calls first."""
    calls = {i: [n.op_identifier() for n in f if n.op_identifier() in functions] for i, f in functions.items()}
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        names = " -> ".join(f"{domain}::{name}" for domain, name, _ in error.args[1][:8])
        raise GraphError(f"functions of the model call themselves, directly or through each other: {names}") from error
    sizes: dict[Identifier, int] = {}
    depths: dict[Identifier, int] = {}
    for identifier in order:
        inner = calls[identifier]
        size = len(functions[identifier]) - len(inner) + sum(sizes[c] for c in inner)
        sizes[identifier] = min(size, MAX_NODES + 1)
        depths[identifier] = 1 + max((depths[c] for c in inner), default=0)
    if max(depths.values(), default=0) > MAX_DEPTH:
        raise ModelFormatError(f"functions of the model call each other more than {MAX_DEPTH} levels deep")
    if sum(sizes.get(node.op_identifier(), 1) for node in graph) > MAX_NODES:
        raise ModelFormatError(f"with its functions put in place the model has more than {MAX_NODES} nodes")


def _check_opsets(model: ir.Model, functions: Collection[ir.Function]) -> None:
    for function in functions:
        for domain, version in function.opset_imports.items():
            present = model.graph.opset_imports.setdefault(domain, version)
            if present != version:
                raise ModelFormatError(
                    f"function {function.domain}::{function.name} imports {domain or 'ai.onnx'} {version}, the model "
                    f"{present}; both need the same opset"
                )


def _expand(graph: ir.Graph, call: ir.Node, functions: Mapping[Identifier, ir.Function], taken: set[str]) -> None:
    """Puts the body of the called function in place of `call`, then the bodies of what that calls, and so on."""
    pending = [call]
    while pending:
        node = pending.pop()
        nodes, results = _instance(node, functions[node.op_identifier()], taken)
        graph.insert_before(node, nodes)
        for old, new in zip(node.outputs, results, strict=False):
            if old.is_graph_output():
                # The name of an output belongs to the model, and `new` may be an input or another output already.
                copy = ir.Node("", "Identity", [new], name=_unique(f"{node.name}/result", taken))
                graph.insert_before(node, copy)
                copy.outputs[0].name, old.name = old.name, f"{old.name}/call"
                new = copy.outputs[0]
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        pending += [n for n in nodes if n.op_identifier() in functions]


def _instance(call: ir.Node, function: ir.Function, taken: set[str]) -> tuple[list[ir.Node], list[ir.Value]]:
    """A copy of the body over the operands of the call: its nodes and its results."""
    if len(call.inputs) > len(function.inputs) or len(call.outputs) > len(function.outputs):
        raise GraphError(
            f"node {call.name!r} calls {function.domain}::{function.name} with {len(call.inputs)} inputs and "
            f"{len(call.outputs)} outputs; the function has {len(function.inputs)} and {len(function.outputs)}"
        )
    values: dict[ir.Value, ir.Value | None] = dict.fromkeys(function.inputs)
    values.update(zip(function.inputs, call.inputs, strict=False))
    given = {a.name: a for a in function.attributes.values() if a.value is not None}
    given.update(call.attributes)
    nodes = []
    for inner in function:
        node = ir.Node(
            inner.domain,
            inner.op_type,
            [None if v is None else values[v] for v in inner.inputs],
            _attributes(inner, given),
            overload=inner.overload,
            num_outputs=len(inner.outputs),
            name=_unique(f"{call.name}/{inner.name or inner.op_type}", taken),
        )
        node.metadata_props.update(call.metadata_props)
        node.metadata_props.update(inner.metadata_props)
        for old, new in zip(inner.outputs, node.outputs, strict=True):
            new.name = _unique(f"{call.name}/{old.name}", taken) if old.name else ""
            values[old] = new
        nodes.append(node)
    results = []
    for output in function.outputs[: len(call.outputs)]:
        value = values[output]
        if value is None:
            raise GraphError(
                f"node {call.name!r} calls {function.domain}::{function.name}, which returns an absent input"
            )
        results.append(value)
    return nodes, results


def _attributes(node: ir.Node, given: Mapping[str, ir.Attr]) -> list[ir.Attr]:
    """The attributes of a body node, with references replaced by what the call (or a default) says."""
    result = []
    for attribute in node.attributes.values():
        source = given.get(str(attribute.ref_attr_name)) if attribute.is_ref() else attribute
        if source is not None:
            result.append(ir.Attr(attribute.name, source.type, source.value))
    return result


def _unique(name: str, taken: set[str]) -> str:
    """A free name like `name`; its end is kept where it is long, so that nested calls cannot make it grow."""
    name = name[-_LONGEST_NAME:]
    unique, n = name, len(taken)
    while unique in taken:
        unique, n = f"{name}_{n}", n + 1
    taken.add(unique)
    return unique
