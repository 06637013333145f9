"""The doors: a Hugging Face folder, an ONNX file, a torch module."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from ..graph.model import Model
from ..ops.declare import Op


def import_model(
    source: Any,
    task: str | None = None,
    *,
    example_inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    dynamic_shapes: Any = None,
    revision: str | None = None,
    check_weights: str = "warn",
    plugins: Sequence[Op] = (),
) -> Model:
    """Imports a model.

    Args:
        source: a Hugging Face folder or hub id, "demo-bert", an .onnx file (or its bytes, or a ModelProto), or a
            torch.nn.Module with `example_inputs`.
        task: what the model is for, where the files do not say it.
        example_inputs: tensors by argument name, for a module.
        dynamic_shapes: for a module, as torch.export takes them; axes 0 and 1 of ids and masks are free by default.
        revision: of a hub model.
        check_weights: "warn" about NaN and Inf in weights, "strict" refuses them, "off" does not look.
        plugins: operators of yours that the graph uses.
    Raises:
        QontextError: a subclass that says what is wrong with the source.
    """
    if isinstance(source, Model):
        return source
    if _is_module(source):
        from .torch_module import import_module

        if example_inputs is None:
            raise ArgumentError("import_model: a torch module needs example_inputs={name: tensor} to be traced with")
        return import_module(source, example_inputs, dynamic_shapes, task=task, plugins=plugins)
    if example_inputs is not None or dynamic_shapes is not None:
        raise ArgumentError("import_model: example_inputs and dynamic_shapes are for torch modules only")
    if _is_onnx(source):
        from .onnx_model import import_onnx

        return import_onnx(source, task=task, plugins=plugins)
    if not isinstance(source, (str, os.PathLike)):
        raise ArgumentError(
            f"import_model: cannot import a {type(source).__name__}; give a folder, hub id, .onnx file or module"
        )
    if not str(source).strip():
        raise ArgumentError(
            "import_model: the source is empty; give a folder, hub id or .onnx file ('.' is this folder)"
        )
    _refuse_other_files(Path(source))
    from .huggingface import import_folder

    return import_folder(source if isinstance(source, str) else Path(source), task, revision, check_weights)


def _is_module(source: Any) -> bool:
    import torch

    return isinstance(source, torch.nn.Module)


def _is_onnx(source: Any) -> bool:
    if isinstance(source, (bytes, bytearray)) or type(source).__name__ == "ModelProto":
        return True
    return isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() == ".onnx"


def _refuse_other_files(path: Path) -> None:
    if not path.is_file():
        return
    suffix = path.suffix.lower()
    if suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        raise ArgumentError(
            f"{path.name} is a pickle, which can run code, and is never opened; convert it to safetensors and import "
            "the folder that holds config.json"
        )
    if suffix == ".qx":
        raise ArgumentError(f"{path.name} is an engine already; use qontext.load")
    raise ArgumentError(f"{path.name} is a file; import_model takes a folder with config.json, or an .onnx file")
