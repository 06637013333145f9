"""Hostile ONNX files: a small honest model, ways to spoil it, and a witness of what was opened."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.arange(32, dtype=np.float32).reshape(8, 4)
PAYLOAD = WEIGHT.tobytes()


def external(location: str = "w.bin", name: str = "w", **entries: str) -> onnx.TensorProto:
    """A weight `[8, 4]` whose data stand in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=WEIGHT.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def model_of(*nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = (), opset: int = 17) -> onnx.ModelProto:
    """x `[B, 8]` through the nodes to y; without nodes y = x @ w."""
    listed = list(nodes) or [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 8])
    graph = helper.make_graph(listed, "graph", [x], [onnx.ValueInfoProto(name="y")], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def inline() -> onnx.TensorProto:
    return numpy_helper.from_array(WEIGHT, "w")


def written(folder: Path, model: onnx.ModelProto) -> Path:
    """The model as a file, its honest external data beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "w.bin").write_bytes(PAYLOAD)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


_watchers: list[Callable[[str], None]] = []
_installed = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _watchers:
        for watcher in _watchers:
            watcher(str(arguments[0]))


@contextmanager
def opened() -> Iterator[list[str]]:
    """The names of all files that anything in this process opens inside."""
    global _installed
    if not _installed:
        sys.addaudithook(_hook)  # there is no way to take one back
        _installed = True
    names: list[str] = []
    _watchers.append(names.append)
    try:
        yield names
    finally:
        _watchers.remove(names.append)
