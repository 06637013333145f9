"""Fused operators as ONNX functions, so that a fused model stays a model that any ONNX tool can run.

The function of a node is written for its variant: its attributes as constants, its absent inputs left out. Variants of
one operator are told apart by the overload name (IR version 10).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import onnx
import onnx.parser
import onnx_ir as ir
from onnxscript import version_converter

from ..dtypes import from_onnx
from ..errors import GraphError, UnsupportedOperatorError, all_problems
from ..graph.attributes import attributes_of, values_of
from ..graph.dims import from_onnx as dims_from_onnx
from .call import Call, Operand
from .catalogue import OPS
from .declare import Op

OPSET = 20
IR_VERSION = 10


def function_for(op: Op, call: Call, opset: int = OPSET) -> ir.Function | None:
    """The ONNX function of this variant of an operator; None where standard operators cannot say it.

    Its inputs and outputs are those of the declaration up to the last one present, so that nodes keep theirs. `opset`
    is what it imports: bodies use primitives that mean the same from opset 20 on.
    Raises GraphError when the body is no valid text, or leaves a needed output undefined.
    """
    inputs = _present([p.name for p in op.inputs], call.inputs)
    outputs = _present([p.name for p in op.outputs], call.outputs)
    text = op.body(_all_outputs(op, call, len(outputs))) if op.body is not None else None
    if text is None:
        return None
    source = (
        f'<domain: "{op.domain}", opset_import: ["" : {opset}]>\n'
        f"{op.name} ({', '.join(inputs)}) => ({', '.join(outputs)}) {{\n{_without_comments(text)}\n}}"
    )
    try:
        proto = onnx.parser.parse_function(source)
    except onnx.parser.ParseError as error:
        raise GraphError(f"the function body of {op.name} is no valid ONNX text: {error}\n{source}") from error
    defined = {name for node in proto.node for name in node.output} | set(inputs)
    missing = [name for name in outputs if name not in defined]
    if missing:
        raise GraphError(f"the function body of {op.name} defines no {', '.join(missing)}; it is\n{text}")
    function = ir.serde.deserialize_function(proto)
    function.overload = _overload(op, call, source)
    for attribute in attributes_of(call.attributes):
        function.attributes.add(attribute)
    return function


def with_bodies(model: ir.Model, plugins: Sequence[Op] = ()) -> ir.Model:
    """A copy of the model in which every node of a declared operator has its function; weights are shared.

    Functions and model have to import the same opset, so an older model is converted to opset 20.
    Raises UnsupportedOperatorError naming every node whose variant has no body, GraphError when the conversion fails.
    """
    copy = model.clone()
    ops = {(op.domain, op.name): op for op in (*OPS, *plugins)}
    opset = max(OPSET, copy.graph.opset_imports.get("", OPSET))
    functions: list[ir.Function] = []
    problems = []
    for node in _fused_nodes(copy, ops):
        op = ops[node.domain, node.op_type]
        function = function_for(op, _call_of(op, node), opset)
        if function is None:
            problems.append(f"node {node.name!r}: {op.name} has no body of standard ONNX operators in this variant")
        else:
            functions.append(function)
    if problems:
        raise UnsupportedOperatorError(
            all_problems("this graph cannot be written in standard ONNX; save it before packing", problems)
        )
    if not functions:
        return copy
    _raise_opset(copy)
    for node, function in zip(_fused_nodes(copy, ops), functions, strict=True):
        node.overload = function.overload
        node.resize_inputs(len(function.inputs))  # what is cut off is absent
        node.resize_outputs(len(function.outputs))
        copy.functions[function.identifier()] = function
        copy.graph.opset_imports.setdefault(function.domain, 1)
    copy.ir_version = max(copy.ir_version or 0, IR_VERSION)
    return copy


def _fused_nodes(model: ir.Model, ops: Mapping[tuple[str, str], Op]) -> list[ir.Node]:
    return [node for node in model.graph.all_nodes() if (node.domain, node.op_type) in ops]


def _raise_opset(model: ir.Model) -> None:
    """Converts a model older than opset 20 in place; nodes of other domains pass through in their order."""
    before = model.graph.opset_imports.get("", OPSET)
    if before >= OPSET:
        return
    version_converter.convert_version(model, OPSET, fallback=True)
    after = model.graph.opset_imports[""]
    if after < OPSET:
        raise GraphError(
            f"the model imports opset {before} and the converter took it no further than {after}; functions of fused "
            f"operators need {OPSET}: export the model again with a newer opset"
        )


def _present(names: Sequence[str], operands: Iterable[Operand | None]) -> list[str]:
    """The declared names up to the last operand that is present."""
    last = max((i for i, o in enumerate(operands) if o is not None), default=-1)
    return list(names[: last + 1])


def _all_outputs(op: Op, call: Call, count: int) -> Call:
    """The call with all outputs before the last wanted one wanted too: a function cannot leave one out."""
    if all(o is not None for o in call.outputs[:count]):
        return call
    inferred = op.infer_outputs(call.inputs, call.attributes)
    filled = tuple(o or i for o, i in zip(call.outputs[:count], inferred, strict=False))
    return replace(call, outputs=filled + call.outputs[count:])


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _overload(op: Op, call: Call, source: str) -> str:
    """A name that is readable and differs wherever the function does: what is not at its default, and a hash."""
    words = [
        str(value).lower()
        for attribute in op.attributes
        if isinstance(value := call.attributes[attribute.name], str) and value != attribute.default
    ]
    words += [p.name for p, o in zip(op.inputs, call.inputs, strict=False) if p.optional and o is not None]
    readable = "_".join("".join(c if c.isalnum() else "_" for c in word) for word in words)[:48]
    settings = ",".join(f"{k}={v}" for k, v in sorted(call.attributes.items()))
    digest = hashlib.sha256(f"{source}|{settings}".encode()).hexdigest()[:8]
    return f"{readable}_{digest}" if readable else digest


def _call_of(op: Op, node: ir.Node) -> Call:
    """The call that a node makes, as far as its values' dtypes and shapes are known."""
    inputs = tuple(_operand(v) for v in node.inputs)
    outputs = tuple(_operand(v) if v.name else None for v in node.outputs)
    return Call(
        op.name,
        inputs + (None,) * (len(op.inputs) - len(inputs)),
        outputs + (None,) * (len(op.outputs) - len(outputs)),
        op.complete_attributes(values_of(node)),
    )


def _operand(value: ir.Value | None) -> Operand | None:
    if value is None:
        return None
    dtype = from_onnx(value.dtype).name if value.dtype is not None else "float32"
    return Operand(dtype, dims_from_onnx(value.shape))
