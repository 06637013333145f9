"""What an ONNX file must keep to before a graph is made of it. Each check lists all its problems in one error."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import onnx

from ..errors import (
    GraphError,
    ModelFormatError,
    QontextError,
    UnsupportedModelError,
    UnsupportedOperatorError,
    WeightsError,
    all_problems,
)
from .onnx_tensors import is_external, problem_of
from .onnx_walk import MAX_DEPTH, Found, Scope, node_label, scopes, tensors

MIN_OPSET, MAX_OPSET = 11, 28
MAX_NODES = 1_000_000
_HELD: dict[int, str] = {
    onnx.AttributeProto.TENSOR: "t",
    onnx.AttributeProto.GRAPH: "g",
    onnx.AttributeProto.SPARSE_TENSOR: "sparse_tensor",
}


def check_structure(model: onnx.ModelProto, name: str) -> list[Found]:
    """Checks everything but external data, which it returns.

    Raises:
        ModelFormatError: too many nodes, nested too deep, names that are no text.
        WeightsError: tensors whose data do not fit their shape.
        UnsupportedModelError: opsets, sparse tensors and value types that qontext does not know.
    """
    found = _bounded(model, name)
    everything = [t for scope in found for t in tensors(scope)]
    problems = [f"{t.where} {problem}" for t in everything if (problem := problem_of(t.tensor)) is not None]
    _raise(WeightsError, f"{name} holds tensors that do not fit their shapes", problems)
    _check_opsets(model, name)
    return [t for t in everything if is_external(t.tensor)]


def check_graph(model: onnx.ModelProto, name: str) -> bool:
    """Checks what values are read and written. Returns False when the nodes are not in the order of evaluation.

    Raises:
        UnsupportedOperatorError: sub-graphs (If, Loop, Scan).
        UnsupportedModelError: sparse tensors, and values that are no tensors.
        GraphError: undefined, doubly defined or cyclic values.
    """
    found = list(scopes(model))
    branches = [
        f"{node_label(node, i)} in {scope.where}"
        for scope in found
        for i, node in enumerate(scope.nodes)
        if any(a.HasField("g") or len(a.graphs) for a in node.attribute)
    ]
    _raise(
        UnsupportedOperatorError,
        f"{name} uses control flow; qontext runs graphs without If, Loop, Scan and other sub-graphs, so export the "
        "model with its branches decided",
        branches,
    )
    sparse = [t.where for scope in found for t in tensors(scope) if t.sparse]
    _raise(UnsupportedModelError, f"{name} holds sparse tensors; make them dense", sparse)
    others = [
        f"{value.name!r} is {kind}"
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info)
        if (kind := value.type.WhichOneof("value")) not in (None, "tensor_type")
    ]
    _raise(UnsupportedModelError, f"{name} has values that are no tensors", others)
    problems, ordered = [], True
    for scope in found:
        wrong, sorted_here = _values(scope)
        problems += wrong
        ordered &= sorted_here
    _raise(GraphError, f"{name} is no legal graph", problems)
    return ordered


def _raise(kind: type[QontextError], what: str, problems: Sequence[str]) -> None:
    if problems:
        raise kind(all_problems(what, problems))


def _bounded(model: onnx.ModelProto, name: str) -> list[Scope]:
    """All scopes, once their number, depth and names are known to be harmless."""
    found, count = [], 0
    for scope in scopes(model):
        count += len(scope.nodes)
        if scope.depth > MAX_DEPTH:
            raise ModelFormatError(f"{name} nests sub-graphs deeper than {MAX_DEPTH} levels: {scope.where}")
        if count > MAX_NODES:
            raise ModelFormatError(f"{name} has more than {MAX_NODES} nodes")
        found.append(scope)
    hollow = [
        f"attribute {a.name!r} of {node_label(node, i)} in {scope.where}"
        for scope in found
        for i, node in enumerate(scope.nodes)
        for a in node.attribute
        if not a.ref_attr_name and a.type in _HELD and not a.HasField(_HELD[a.type])
    ]
    _raise(ModelFormatError, f"{name} has attributes without their content", hollow)
    broken = [text for scope in found for text in _texts(scope) if not isinstance(text, str)]
    if broken:
        raise ModelFormatError(all_problems(f"{name} holds names that are no UTF-8 text", map(repr, broken)))
    return found


def _texts(scope: Scope) -> Iterable[str]:
    """All names of a scope. The protobuf reader gives bytes for text that is no UTF-8."""
    for node in scope.nodes:
        yield from (node.name, node.op_type, node.domain, node.overload, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.ref_attr_name)
        for pair in node.metadata_props:
            yield from (pair.key, pair.value)
    if scope.function is not None:
        function = scope.function
        yield from (function.name, function.domain, function.overload, *function.input, *function.output)
        yield from function.attribute
        yield from (a.name for a in function.attribute_proto)
    if scope.graph is None:
        return
    yield scope.graph.name
    yield from (t.name for t in scope.graph.initializer)
    for value in (*scope.graph.input, *scope.graph.output, *scope.graph.value_info):
        yield value.name
        yield from (d.dim_param for d in value.type.tensor_type.shape.dim)


def _check_opsets(model: onnx.ModelProto, name: str) -> None:
    problems = []
    for owner, imports in [("the model", model.opset_import)] + [
        (f"function {f.domain}::{f.name}", f.opset_import) for f in model.functions
    ]:
        seen: dict[str, int] = {}
        for opset in imports:
            domain = "" if opset.domain == "ai.onnx" else opset.domain
            if seen.setdefault(domain, opset.version) != opset.version:
                problems.append(f"{owner} imports {domain or 'ai.onnx'} {seen[domain]} and {opset.version}")
            if domain == "" and not MIN_OPSET <= opset.version <= MAX_OPSET:
                problems.append(f"{owner} imports ai.onnx opset {opset.version}")
        if "" not in seen and owner == "the model":
            problems.append("the model imports no opset of ai.onnx")
    _raise(
        UnsupportedModelError,
        f"{name} needs other opsets than qontext has, which are ai.onnx {MIN_OPSET} to {MAX_OPSET}; export it again",
        problems,
    )


def _values(scope: Scope) -> tuple[list[str], bool]:
    """What is wrong with the values of a scope, and whether its nodes stand in the order of evaluation."""
    problems: list[str] = []
    inputs, weights, outputs = _borders(scope)
    for what, names in (("input", inputs), ("weight", weights), ("output", outputs)):
        problems += [f"{scope.where} has the {what} {n!r} twice" for n in _repeated(names)]
        problems += [f"{scope.where} has an {what} without a name"] * ("" in names)
    producer: dict[str, int] = {}
    given = set(inputs) | set(weights)
    for i, node in enumerate(scope.nodes):
        if not node.op_type:
            problems.append(f"{node_label(node, i)} in {scope.where} has no operator")
        for output in node.output:
            if output and (output in given or output in producer):
                problems.append(
                    f"two values of {scope.where} are called {output!r}, one of them of {node_label(node, i)}"
                )
            elif output:
                producer[output] = i
    ordered = True
    for i, node in enumerate(scope.nodes):
        for value in node.input:
            if value and value not in given and value not in producer:
                problems.append(f"{node_label(node, i)} in {scope.where} reads {value!r}, which nothing defines")
            ordered &= producer.get(value, -1) < i
    for output in outputs:
        if output and output not in given and output not in producer:
            problems.append(f"the output {output!r} of {scope.where} is produced by nothing")
    if not ordered and not problems:
        cycle = _cycle(len(scope.nodes), lambda i: [producer[v] for v in scope.nodes[i].input if v in producer])
        if cycle:
            nodes = " -> ".join(node_label(scope.nodes[i], i) for i in cycle[:8])
            problems.append(f"nodes of {scope.where} wait for each other: {nodes}")
    return problems, ordered


def _borders(scope: Scope) -> tuple[list[str], list[str], list[str]]:
    """Names of inputs, weights and outputs."""
    if scope.graph is not None:
        graph = scope.graph
        return [v.name for v in graph.input], [t.name for t in graph.initializer], [v.name for v in graph.output]
    assert scope.function is not None
    return list(scope.function.input), [], list(scope.function.output)


def _repeated(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return [n for n in names if n in seen or seen.add(n)]  # type: ignore[func-returns-value]


def _cycle(count: int, reads: Callable[[int], list[int]]) -> list[int]:
    """The nodes of one cycle, none when the nodes can be ordered."""
    waiting = [0] * count
    readers: list[list[int]] = [[] for _ in range(count)]
    for i in range(count):
        for j in reads(i):
            waiting[i] += 1
            readers[j].append(i)
    ready = deque(i for i in range(count) if not waiting[i])
    while ready:
        for reader in readers[ready.popleft()]:
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    stuck = {i for i in range(count) if waiting[i]}
    if not stuck:
        return []
    # From any stuck node, walking to a stuck node it reads comes back to where it has been.
    path, seen = [min(stuck)], {}
    while path[-1] not in seen:
        seen[path[-1]] = len(path) - 1
        path.append(next(j for j in reads(path[-1]) if j in stuck))
    return path[seen[path[-1]] :]
