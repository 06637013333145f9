"""Small ONNX models for tests, and the two ways of running them: ONNX Runtime and ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

import qontext as qx
from qontext.builder.plan import plan_program
from qontext.builder.tune import Tuner
from qontext.dtypes import BY_NAME
from qontext.graph.model import Model
from qontext.importers.onnx_model import import_onnx
from qontext.ops.catalogue import BY_NAME as OPS
from qontext.ops.device import device_of
from qontext.ops.infer import Inference
from qontext.runtime.executor import Executor

Shape = Sequence[int | str | None]
Feeds = Mapping[str, np.ndarray]


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def one_node(
    op_type: str,
    domain: str,
    operands: Sequence[tuple[str, np.ndarray | tuple[np.dtype, Shape] | None]],
    outputs: Sequence[str],
    opset: int = 17,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node. An array among the operands is a weight, (dtype, shape) an input, None is absent."""
    names = [name if operand is not None else "" for name, operand in operands]
    node = helper.make_node(op_type, names, list(outputs), name=f"the_{op_type}", domain=domain, **attributes)
    return graph_of([node], operands, [o for o in outputs if o], opset, domain)


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    operands: Sequence[tuple[str, np.ndarray | tuple[np.dtype, Shape] | None]],
    outputs: Sequence[str],
    opset: int = 17,
    domain: str = "",
) -> onnx.ModelProto:
    """A model of several nodes, its outputs without declared types."""
    inputs, weights = [], []
    for name, operand in operands:
        if isinstance(operand, tuple):
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(operand[0]))
            inputs.append(helper.make_tensor_value_info(name, kind, operand[1]))
        elif operand is not None:
            weights.append(numpy_helper.from_array(operand, name))
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(list(nodes), "graph", inputs, results, weights)
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def by_onnxruntime(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """All outputs, without any optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def by_us(model: onnx.ModelProto | Model, feeds: Feeds, **settings: Any) -> list[np.ndarray]:
    """All outputs of the built engine."""
    imported = model if isinstance(model, Model) else import_onnx(model)
    return list(qx.build(imported, tune=False, **settings).run(dict(feeds)).values())


def as_imported(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """All outputs of the imported graph before any fusion: what the importer alone is to blame for."""
    graph = import_onnx(model).graph
    inference = Inference(OPS, graph.opset_imports[""])
    inference.run(graph)
    program = plan_program("imported", graph, inference, device_of("cpu"), Tuner(repeats=0))
    outputs = Executor(program).run({name: torch.from_numpy(array) for name, array in feeds.items()})
    return [tensor.numpy() for tensor in outputs.values()]


def relative_error(found: np.ndarray, right: np.ndarray) -> float:
    """Relative RMS error; infinite for another shape or numbers that are not finite."""
    if found.shape != right.shape or not np.isfinite(found).all():
        return float("inf")
    difference = np.linalg.norm(found.astype(np.float64) - right)
    return float(difference / max(float(np.linalg.norm(right.astype(np.float64))), 1e-30))


def assert_equal(found: Sequence[np.ndarray], right: Sequence[np.ndarray], factor: float = 1.0) -> None:
    """Numbers agree within the tolerance of float32; whole numbers exactly."""
    assert len(found) == len(right)
    for ours, theirs in zip(found, right, strict=True):
        assert ours.dtype == theirs.dtype
        if np.issubdtype(theirs.dtype, np.floating):
            error = relative_error(ours, theirs)
            assert error <= factor * BY_NAME["float32"].tolerance, f"relative error {error}"
        else:
            np.testing.assert_array_equal(ours, theirs)


FLOAT, INT32, INT64, BOOL = np.float32, np.int32, np.int64, np.bool_
__all__ = [
    "BOOL",
    "FLOAT",
    "INT32",
    "INT64",
    "TensorProto",
    "as_imported",
    "assert_equal",
    "by_onnxruntime",
    "by_us",
    "graph_of",
    "one_node",
    "random",
    "relative_error",
]
