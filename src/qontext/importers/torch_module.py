"""The torch door: a `torch.nn.Module` with example inputs becomes a Model of ours, through torch's ONNX exporter."""

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import copy
from typing import Any

import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree

from ..errors import ArgumentError, GraphError, ShapeError, UnsupportedModelError, UnsupportedOperatorError
from ..graph.model import Model
from ..graph.tensors import to_onnx
from ..ops.declare import Op
from .onnx_model import adopt_graph
from .onnx_task import check_task
from .torch_examples import Axes, named_examples, open_axes, traceable

OPSET = 23
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def import_module(
    module: torch.nn.Module,
    example_inputs: Mapping[str, Any] | Sequence[Any] | torch.Tensor,
    dynamic_shapes: Mapping[str, Any] | Sequence[Any] | None = None,
    task: str | None = None,
    plugins: Sequence[Op] = (),
) -> Model:
    """Imports a module as it computes in evaluation mode; the module itself stays as it is.

    Args:
        module: its weights are copied.
        example_inputs: tensors by argument name, or in the order of the arguments of `forward`.
        dynamic_shapes: names of open axes by input, {"x": {0: "B", 1: "S"}}; what is not in it follows the rule of
            `torch_examples.open_axes`: ids and masks are `[B, S]`, features `[B, S, E]`.
        task: what it was trained for, when its outputs do not tell.
        plugins: operators of the user's that the graph may use.
    Raises:
        ArgumentError: examples or shapes that do not fit the module.
        UnsupportedModelError: the exporter cannot follow the module; the message says where it gave up.
        UnsupportedOperatorError: it exported operators that cannot be run.
    """
    check_task(task)
    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(f"a torch.nn.Module was asked for, got a {type(module).__name__}")
    examples = named_examples(module, example_inputs)
    axes = open_axes(examples, dynamic_shapes)
    examples = traceable(examples, axes)
    name = type(module).__name__
    with _unchanged(module), _quiet():
        program = _export(module, examples, axes, name)
    model = program.model
    exported = program.exported_program
    assert exported is not None
    _name_outputs(model.graph, exported.call_spec.out_spec, name)
    _name_inputs(model.graph, exported, examples, axes, name)
    _own_weights(model.graph)
    try:
        imported = adopt_graph(model, name, "torch", task, plugins)
    except UnsupportedOperatorError:
        raise
    except (GraphError, ShapeError) as error:
        opened = ", ".join(sorted({symbol for open_here in axes.values() for symbol in open_here.values()}))
        raise UnsupportedModelError(
            f"{name} was exported, but not for every size of {opened or 'its inputs'}: {error.message}. Name the axes "
            "that really change in dynamic_shapes"
        ) from error
    imported.config |= _labels(module, imported.task)
    return imported


def _labels(module: torch.nn.Module, task: str | None) -> dict[str, Any]:
    """Names of classes and the kind of classification, where a module of transformers has them in its config."""
    config = getattr(module, "config", None)
    names = getattr(config, "id2label", None)
    if task not in ("classify", "token-classify") or not isinstance(names, Mapping):
        return {}
    kind = getattr(config, "problem_type", None)
    return {"labels": {str(k): str(v) for k, v in names.items()}, "problem_type": kind}


def _export(module: torch.nn.Module, examples: dict[str, Any], axes: Axes, name: str) -> torch.onnx.ONNXProgram:
    shapes = {
        n: dict.fromkeys(axes.get(n, {}), torch.export.Dim.DYNAMIC) if isinstance(v, torch.Tensor) else None
        for n, v in examples.items()
    }
    try:
        program = torch.onnx.export(
            module, (), kwargs=examples, dynamo=True, opset_version=OPSET, dynamic_shapes=shapes, verbose=False
        )
    except Exception as error:  # the exporter runs the user's own code, which may raise anything
        raise UnsupportedModelError(
            f"torch's ONNX exporter cannot follow {name}: {_reason(error)}. Check that it runs on the example inputs, "
            "and name the axes that change in dynamic_shapes"
        ) from error
    assert program is not None
    return program


def _reason(error: BaseException) -> str:
    """The first line of the innermost error, without colours."""
    while error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__):
        error = error.__cause__ or error.__context__ or error
    lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines()]
    useful = [line for line in lines if line]
    return f"{type(error).__name__}: {useful[0][:300]}" if useful else type(error).__name__


@contextmanager
def _unchanged(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every attribute of every sub-module is what it was.

    Modules may keep things while they run (attention scores, caches): during an export these would be symbols.
    """
    saved = [
        (m, dict(vars(m)), {k: copy(v) for k, v in vars(m).items() if isinstance(v, (dict, list, set))})
        for m in module.modules()
    ]
    module.eval()
    try:
        yield
    finally:
        for inner, attributes, containers in saved:
            for key, before in containers.items():
                held = attributes[key]
                held.clear()
                held.extend(before) if isinstance(held, list) else held.update(before)
            vars(inner).clear()
            vars(inner).update(attributes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress, warnings and log lines from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _name_inputs(
    graph: ir.Graph, program: torch.export.ExportedProgram, examples: Mapping[str, Any], axes: Axes, name: str
) -> None:
    """Writes the names of arguments and our names of sizes into the inputs; the exporter may make up its own."""
    tensors = {n: v for n, v in examples.items() if isinstance(v, torch.Tensor)}
    arguments = [n for n in program.graph_signature.user_inputs if isinstance(n, str) and n in tensors]
    if len(arguments) != len(tensors) or len(graph.inputs) != len(tensors):
        raise UnsupportedModelError(
            f"{name} was exported with the inputs {', '.join(str(v.name) for v in graph.inputs)}, but was called with "
            f"{', '.join(tensors)}"
        )
    for value, argument in zip(graph.inputs, arguments, strict=True):
        value.name = argument
        shape: list[int | str] = list(tensors[argument].shape)
        for axis, symbol in axes.get(argument, {}).items():
            shape[axis] = symbol
        value.shape = ir.Shape(shape)


def _name_outputs(graph: ir.Graph, spec: pytree.TreeSpec, name: str) -> None:
    """Names outputs after the keys of the ModelOutput (or dict) that `forward` returns, else by position."""
    structure = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    leaves, _ = pytree.tree_flatten_with_path(structure)
    names = ["_".join(str(_key(part)) for part in path) or "output" for path, _ in leaves]
    names = [f"output_{n}" if n.isdigit() else n for n in names]
    if len(names) != len(graph.outputs):
        raise UnsupportedModelError(
            f"{name} returns {len(names)} values ({', '.join(names)}), but was exported with {len(graph.outputs)}; "
            "return tensors only"
        )
    taken = {str(v.name) for v in (*graph.inputs, *graph.initializers.values())}
    taken |= {str(v.name) for node in graph for v in node.outputs}
    for i, (value, wanted) in enumerate(zip(list(graph.outputs), names, strict=True)):
        if value.producer() is None or any(o is value for o in graph.outputs[:i]):
            # An input that is returned, or one value returned twice.
            node = ir.Node("", "Identity", [value], name=f"output_{i}/Identity")
            graph.append(node)
            value = node.outputs[0]
            graph.outputs[i] = value
        if value.name != wanted:
            value.name = wanted if wanted not in taken else f"{wanted}_out"
            taken.add(str(value.name))


def _key(part: object) -> object:
    """What a step of a path is called: a key, an attribute or a position."""
    for attribute in ("key", "name", "idx"):
        if hasattr(part, attribute):
            return getattr(part, attribute)
    return part


def _own_weights(graph: ir.Graph) -> None:
    """Copies the weights, each once: training the module further must not change the model."""
    copies: dict[tuple[int, torch.dtype, torch.Size, tuple[int, ...]], torch.Tensor] = {}
    for value in graph.initializers.values():
        # The exporter's own class of tensors, or onnx_ir's: both hold the parameter as `raw`.
        raw = getattr(value.const_value, "raw", None)
        if not isinstance(raw, torch.Tensor):
            continue
        raw = raw.detach()
        key = (raw.data_ptr(), raw.dtype, raw.shape, raw.stride())
        if key not in copies:
            copies[key] = raw.to("cpu", copy=True).contiguous()
        value.const_value = to_onnx(copies[key], value.name)
