"""Can the nodes of a graph be run: known operators, and operands and attributes as the ONNX schema has them?"""

import functools
from collections.abc import Mapping, Sequence

import onnx.defs
import onnx_ir as ir

from ..errors import GraphError, UnsupportedOperatorError, all_problems
from ..graph.onnx_checks import MAX_OPSET
from ..ops.declare import Op
from ..ops.standard.catalogue import lookup as standard_lookup
from . import contrib

# ONNX Runtime writes these into the standard domain of graphs older than the operators.
_BACKPORTED = {"LayerNormalization": 17}
# Newer in the catalogue than opset 11 for a detail that inference does not see: the ratio as an attribute.
_SAME_BEFORE = ("Dropout",)

_TYPE_NAMES = {ir.DataType.FLOAT: "float", ir.DataType.DOUBLE: "double"}
_Option = onnx.defs.OpSchema.FormalParameterOption


def check_nodes(graph: ir.Graph, ops: Mapping[str, Op]) -> None:
    """Checks every node.

    Raises:
        UnsupportedOperatorError: lists every operator that cannot be run, with the nodes that use it.
        GraphError: lists every standard node with operands or attributes that its operator does not have.
    """
    opset = graph.opset_imports.get("", 0)
    users: dict[str, list[str]] = {}
    for node in graph:
        problem = operator_problem(node, ops, opset)
        if problem is not None:
            users.setdefault(f"{node.domain or 'ai.onnx'}::{node.op_type} is {problem}", []).append(repr(node.name))
    if users:
        raise UnsupportedOperatorError(
            all_problems(
                "the model uses operators that cannot be run (bring your own as plugins=[...])",
                [f"{what}: {_listed(nodes)}" for what, nodes in users.items()],
            )
        )
    problems = [
        f"node {node.name!r} ({node.op_type}) {problem}"
        for node in graph
        if node.domain == "" and contrib.family_of(node) is None
        for problem in _schema_problems(node, opset)
    ]
    if problems:
        raise GraphError(all_problems("nodes do not fit their operators", problems))


def operator_problem(node: ir.Node, ops: Mapping[str, Op], opset: int) -> str | None:
    """Why the operator of a node cannot be run, None when it can."""
    op = ops.get(node.op_type)
    if op is not None and op.domain == node.domain:
        return None
    if contrib.family_of(node) is not None:
        return None
    if node.domain != "":
        return "of a domain that qontext does not know"
    known = standard_lookup(node.op_type)
    if known is None:
        return "an operator that qontext does not have"
    if known.since > opset and node.op_type not in _BACKPORTED and node.op_type not in _SAME_BEFORE:
        return f"there only from opset {known.since} on, the model imports {opset}"
    return None


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > 5 else ""
    return f"{len(names)} node{'s' if len(names) > 1 else ''}, {', '.join(names[:5])}{more}"


def check_operands(node: ir.Node) -> None:
    """Raises GraphError when operands of a standard node, as far as inferred, are of types that it does not take.

    Exporters write types into old opsets that the operator takes in newer ones only, so the newest say what it takes.
    """
    schema = _schema(node.op_type, MAX_OPSET)
    formals = list(schema.inputs)
    bound: dict[str, ir.DataType] = {}
    problems = []
    for i, value in enumerate(node.inputs):
        formal = formals[min(i, len(formals) - 1)]
        if value is None or value.dtype is None:
            continue
        kind = _TYPE_NAMES.get(value.dtype, value.dtype.name.lower())
        if f"tensor({kind})" not in formal.types:
            problems.append(f"{formal.name!r} ({value.name!r}) is {kind}")
        elif (
            formal.is_homogeneous
            and not formal.type_str.startswith("tensor(")
            and (bound.setdefault(formal.type_str, value.dtype) != value.dtype)
        ):
            problems.append(f"{formal.name!r} ({value.name!r}) is {kind}, its other operands are of another type")
    if problems:
        raise GraphError(
            all_problems(f"node {node.name!r} ({node.op_type}) does not take operands of these types", problems)
        )


@functools.cache
def _schema(op_type: str, opset: int) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(op_type, max(opset, _BACKPORTED.get(op_type, 0)), "")


def _schema_problems(node: ir.Node, opset: int) -> list[str]:
    """What the schema of a standard operator does not allow."""
    schema = _schema(node.op_type, opset)
    problems = []
    for what, count, least, most in (
        ("inputs", len(node.inputs), schema.min_input, schema.max_input),
        ("outputs", len(node.outputs), schema.min_output, schema.max_output),
    ):
        if not least <= count <= most:
            allowed = str(least) if least == most else f"{least} or more" if most > 1000 else f"{least} to {most}"
            problems.append(f"has {count} {what}; allowed are {allowed}")
    for formal, value in zip(schema.inputs, node.inputs, strict=False):
        if value is None and formal.option == _Option.Single:
            problems.append(f"lacks its input {formal.name!r}")
    for name, attribute in node.attributes.items():
        known = schema.attributes.get(name)
        if known is None:
            problems.append(f"has the attribute {name!r}; allowed are {', '.join(schema.attributes) or 'none'}")
        elif (allowed := str(known.type).rpartition(".")[2]) != attribute.type.name:
            problems.append(f"has the attribute {name!r} as {attribute.type.name}; allowed is {allowed}")
    missing = [n for n, a in schema.attributes.items() if a.required and n not in node.attributes]
    return problems + [f"lacks its attribute {name!r}" for name in missing]
