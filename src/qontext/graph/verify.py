"""What a legal graph is. `verify` runs at every pass border in tests and on every graph that enters `build`.

1. Every input of a node is a graph input, an initializer, or the output of an earlier node (so there is no cycle).
2. Names of values are unique, and not empty where somebody reads them.
3. Graph outputs are produced.
4. Every operator is known, with the version that the graph imports.
5. A donated value (an input that the operator updates in place) has no other consumer after the update and is
   not a weight.
"""

from collections.abc import Callable, Mapping

import onnx_ir as ir

from ..errors import GraphError, all_problems

Updates = Callable[[ir.Node], Mapping[int, int]]
"""For a node: {output index: input index} of what it updates in place."""


def no_updates(node: ir.Node) -> Mapping[int, int]:
    return {}


def problems_of(graph: ir.Graph, known: Callable[[ir.Node], bool], updates: Updates = no_updates) -> list[str]:
    """All broken rules, one sentence each."""
    problems: list[str] = []
    defined: set[ir.Value] = set(graph.inputs) | set(graph.initializers.values())
    names: dict[str, ir.Value] = {}

    def name(value: ir.Value) -> None:
        if value.name in (None, ""):
            if value.uses() or value.is_graph_output():
                problems.append(f"a value of {_who(value)} is read but has no name")
            return
        other = names.setdefault(str(value.name), value)
        if other is not value:
            problems.append(f"two values are called {value.name!r}: of {_who(other)} and of {_who(value)}")

    for value in [*graph.inputs, *graph.initializers.values()]:
        name(value)
    donated: dict[ir.Value, ir.Node] = {}
    for node in graph:
        for read in node.inputs:
            if read is None:
                continue
            if read not in defined:
                problems.append(
                    f"{_node(node)} reads {read.name!r}, which nothing before it defines (a cycle or a missing input)"
                )
            if read in donated:
                problems.append(f"{_node(node)} reads {read.name!r} after {_node(donated[read])} has written over it")
        if not known(node):
            problems.append(f"{_node(node)} uses the unknown operator {node.domain or 'ai.onnx'}::{node.op_type}")
        else:
            for _, index in updates(node).items():
                target = node.inputs[index] if index < len(node.inputs) else None
                if target is None:
                    continue
                if target.is_initializer():
                    problems.append(f"{_node(node)} would write over the weight {target.name!r}")
                donated[target] = node
        for value in node.outputs:
            name(value)
            defined.add(value)
    for value in graph.outputs:
        if value not in defined:
            problems.append(f"the output {value.name!r} is produced by nothing")
        if value in donated and value.producer() is not donated[value]:
            problems.append(f"the output {value.name!r} is written over by {_node(donated[value])}")
    return problems


def verify(
    graph: ir.Graph, known: Callable[[ir.Node], bool], updates: Updates = no_updates, after: str = "import"
) -> None:
    """Raises GraphError that lists every broken rule."""
    problems = problems_of(graph, known, updates)
    if problems:
        raise GraphError(all_problems(f"the graph {graph.name!r} is not legal after {after}", problems))


def _node(node: ir.Node) -> str:
    return f"node {node.name!r} ({node.op_type})"


def _who(value: ir.Value) -> str:
    producer = value.producer()
    return _node(producer) if producer is not None else "the graph's inputs"
