"""The ONNX door: a file, bytes or a message becomes a Model of ours."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from ..errors import GraphError, QontextError, ShapeError, UnsupportedOperatorError, all_problems
from ..graph.dims import Shape, from_onnx, text
from ..graph.ledger import Ledger
from ..graph.model import Model
from ..graph.narrow import write_down_narrow_types
from ..graph.onnx_file import read_onnx
from ..graph.onnx_functions import inline_functions
from ..graph.onnx_source import Source
from ..graph.verify import verify
from ..ops.declare import Op
from ..ops.infer import Inference
from ..ops.operators import operators
from . import contrib
from .onnx_fixed_sizes import fix_size
from .onnx_growth import Growth, check_growth
from .onnx_inputs import attention_mask_of, check_types, longest_of, name_sizes, rules_of
from .onnx_names import name_nodes, set_origins
from .onnx_nodes import check_nodes, check_operands, operator_problem
from .onnx_task import check_task, task_of

Declared = tuple[ir.DataType | None, Shape | None]

_CONSTANTS = {
    "value_float": ir.DataType.FLOAT,
    "value_floats": ir.DataType.FLOAT,
    "value_int": ir.DataType.INT64,
    "value_ints": ir.DataType.INT64,
}


def import_onnx(source: Source, task: str | None = None, plugins: Sequence[Op] = ()) -> Model:
    """Imports an ONNX model.

    Args:
        source: path of a file (external data may stand beside it), bytes, or an `onnx.ModelProto`.
        task: what it was trained for, when its outputs do not tell.
        plugins: operators of the user's that the graph may use.
    Returns:
        A model whose ids and masks are `[B, S]`, with every node in its ledger.
    Raises:
        ModelFormatError, WeightsError: damaged or hostile files.
        UnsupportedModelError, UnsupportedOperatorError: what qontext cannot run, all of it in one message.
        GraphError: contradicting shapes, naming the node and both shapes.
    """
    check_task(task)
    name = Path(source).stem if isinstance(source, (str, os.PathLike)) else "model"
    return adopt_graph(read_onnx(source), name, "onnx", task, plugins)


def adopt_graph(model: ir.Model, name: str, source: str, task: str | None = None, plugins: Sequence[Op] = ()) -> Model:
    """Makes a Model of a graph that keeps the rules of `onnx_checks`; the graph is changed in place."""
    ops = operators(plugins)
    graph = model.graph
    name_nodes(graph)
    inline_functions(model, lambda domain, op_type: op_type in ops and ops[op_type].domain == domain)
    set_origins(graph)
    _drop_overridable(graph)
    _lift_constants(graph)
    graph.name = graph.name or name
    check_types(graph)
    write_down_narrow_types(graph)
    check_nodes(graph, ops)
    name_sizes(graph)
    ledger = Ledger()
    ledger.adopt(graph)
    inference = _infer(graph, ops, ledger)
    verify(graph, lambda node: operator_problem(node, ops, _opset(graph)) is None)
    attention_mask = attention_mask_of(graph)
    rules = rules_of(graph, attention_mask)
    longest = longest_of(graph, inference)
    return Model(
        name,
        graph,
        ledger,
        rules,
        task or task_of(graph, rules),
        config={} if longest is None else {"max_length": longest},
        source=source,
        attention_mask=attention_mask,
    )


def _drop_overridable(graph: ir.Graph) -> None:
    """Takes weights out of the inputs, where old exporters listed them too."""
    for value in [v for v in graph.inputs if v.is_initializer()]:
        graph.inputs.remove(value)


def _lift_constants(graph: ir.Graph) -> None:
    """Constant nodes become weights: they compute nothing, so reports need not count them."""
    for node in list(graph):
        if node.op_type != "Constant" or node.domain != "":
            continue
        value = node.outputs[0]
        tensor = _tensor_of(node)
        if value.is_graph_output():
            continue
        shape = ir.Shape(list(tensor.shape.numpy()))
        held = ir.Value(name=value.name, const_value=tensor, shape=shape, type=ir.TensorType(tensor.dtype))
        value.name = f"{value.name}/lifted"
        graph.register_initializer(held)
        value.replace_all_uses_with(held)
        graph.remove(node, safe=True)


def _tensor_of(node: ir.Node) -> ir.TensorProtocol:
    if len(node.attributes) == 1:
        name, attribute = next(iter(node.attributes.items()))
        if name == "value" and attribute.type == ir.AttributeType.TENSOR:
            return attribute.as_tensor()
        if name in _CONSTANTS and attribute.value is not None:
            return ir.tensor(attribute.value, dtype=_CONSTANTS[name])
    found = ", ".join(node.attributes) or "none"
    raise UnsupportedOperatorError(
        f"node {node.name!r} (Constant) has the attributes {found}; allowed is one of value, {', '.join(_CONSTANTS)}"
    )


def _opset(graph: ir.Graph) -> int:
    return graph.opset_imports.get("", 0)


def _infer(graph: ir.Graph, ops: Mapping[str, Op], ledger: Ledger) -> Inference:
    """Converts foreign nodes and infers all of them, in order, then compares with what the file declares.

    Once more for each size that turns out to be fixed.
    """
    declared = {v: (v.dtype, from_onnx(v.shape)) for node in graph for v in node.outputs}
    for value in declared:
        value.shape = None  # where nothing can be inferred, what the file says is not to be relied on
    inference = None
    while inference is None:
        inference = _infer_once(graph, ops, ledger)
    _compare(declared, inference)
    return inference


def _infer_once(graph: ir.Graph, ops: Mapping[str, Op], ledger: Ledger) -> Inference | None:
    """None when a size of the inputs was fixed on the way."""
    inference = Inference(ops, _opset(graph))
    growth = Growth(graph)
    for value in graph.inputs:
        inference.declare(value)
    for node in list(graph):
        family = contrib.family_of(node)
        if family is not None:
            for made in contrib.convert(node, family, graph, inference, ledger):
                growth.count(made, inference)
            continue
        if node.domain == "":
            check_operands(node)
            check_growth(node, inference)
        try:
            inference.infer(node)
        except QontextError as error:
            if isinstance(error, ShapeError) and fix_size(graph, node, inference):
                return None
            if repr(node.name) in error.message:
                raise
            raise type(error)(f"node {node.name!r} ({node.op_type}): {error.message}") from error
        growth.count(node, inference)
    return inference


def _compare(declared: Mapping[ir.Value, Declared], inference: Inference) -> None:
    """Raises GraphError where the file declares another type or shape than its operators compute."""
    problems = []
    for value, (dtype, shape) in declared.items():
        node = value.producer()
        if node is None or value not in inference.known:
            continue
        computed = inference.shape(value)
        if dtype is not None and value.dtype is not None and dtype != value.dtype:
            problems.append(
                f"node {node.name!r} ({node.op_type}) computes {value.name!r} as {value.dtype.name}, the file declares "
                f"{dtype.name}"
            )
        elif _contradicts(shape, computed):
            problems.append(
                f"node {node.name!r} ({node.op_type}) computes {value.name!r} as {text(computed)}, the file declares "
                f"{text(shape)}"
            )
    if problems:
        raise GraphError(all_problems("declared and computed values contradict each other", problems))


def _contradicts(declared: Shape | None, computed: Shape | None) -> bool:
    """True for another rank or another number; a number where the run decides is only an example of it."""
    if declared is None or computed is None:
        return False
    if len(declared) != len(computed):
        return True
    return any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(declared, computed, strict=True))
