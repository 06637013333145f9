"""Reading and writing ONNX files. Reading trusts nothing in the file; writing never leaves half a file."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir

from ..errors import ArgumentError, ModelFormatError, all_problems
from .onnx_checks import check_graph, check_structure
from .onnx_external import Entry, ExternalFiles, read_entry, tensor_of
from .onnx_source import Source, load_proto
from .onnx_walk import Found

# A protobuf message holds 2 GiB at most; the graph beside the weights needs room too.
_INLINE_BYTES = 1 << 30
_EXTERNAL_FROM = 1024


def read_onnx(source: Source) -> ir.Model:
    """The model in a file, in bytes or in a message, its weights mapped or lazy.

    Args:
        source: a path (external data may stand beside it), or bytes or an `onnx.ModelProto` (no external data).
    Returns:
        A model whose graph and functions keep all rules of `onnx_checks`, nodes in the order of evaluation.
    Raises:
        ArgumentError: `source` is nothing of that kind.
        ModelFormatError, WeightsError: the file is damaged, hostile or no ONNX.
        UnsupportedModelError, UnsupportedOperatorError: opsets, control flow or types that qontext does not know.
        GraphError: values undefined, defined twice or in a cycle.
    """
    proto, name, folder = load_proto(source)
    external = check_structure(proto, name)
    entries = _entries(external, name)
    files = None
    if entries:
        if folder is None:
            raise ModelFormatError(
                f"{name} has {len(entries)} weights in other files; give the path of the .onnx file, which says where "
                "these are"
            )
        files = ExternalFiles(folder)
        problems = files.check((found.where, entry) for found, entry in entries)
        if problems:
            raise ModelFormatError(all_problems(f"external data of {name} are refused", problems))
    ordered = check_graph(proto, name)
    model = _deserialize(proto, name)
    if not ordered:
        model.graph.sort()
        for function in model.functions.values():
            function.sort()
    if files is not None:
        files.verify(entry for _, entry in entries)
        _attach(model, files)
    return model


def _entries(external: Iterable[Found], name: str) -> list[tuple[Found, Entry]]:
    entries, problems = [], []
    for found in external:
        try:
            entries.append((found, read_entry(found)))
        except ValueError as error:
            problems.append(f"{found.where} {error}")
    if problems:
        raise ModelFormatError(all_problems(f"external data of {name} are refused", problems))
    return entries


def _deserialize(proto: onnx.ModelProto, name: str) -> ir.Model:
    try:
        return ir.serde.deserialize_model(proto)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, RecursionError) as error:
        raise ModelFormatError(f"{name} holds something that no graph can be made of: {_cause(error)}") from error
    except ir.serde.SerdeError as error:
        raise ModelFormatError(f"{name} holds something that no graph can be made of: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """The first line of the innermost error, which says what; the outer ones only say where."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _attach(model: ir.Model, files: ExternalFiles) -> None:
    """Puts views of the mapped files where the graph names places in files."""
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = tensor_of(value.const_value, files)
    for nodes in (model.graph, *model.functions.values()):
        for node in nodes:
            for key, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and isinstance(attribute.value, ir.ExternalTensor):
                    node.attributes[key] = ir.AttrTensor(key, tensor_of(attribute.value, files))


def write_onnx(model: ir.Model, path: str | os.PathLike[str], external_data: str | None = None) -> None:
    """Writes a model to a temporary name and renames it, so that no half file is ever seen.

    Args:
        model: stays as it is.
        path: of the .onnx file; its folder exists.
        external_data: name of a file beside it for all weights of 1 KiB and more. Without it weights go into the
            model file, or, from 1 GiB on, into `<name of the model file>.data`.
    Raises:
        ArgumentError: `external_data` is more than a file name, or the folder cannot be written.
    """
    path = Path(path)
    weights = [v.const_value for v in model.graph.initializers.values() if v.const_value is not None]
    if external_data is None and sum(w.nbytes for w in weights) >= _INLINE_BYTES:
        external_data = f"{path.name}.data"
    if external_data is not None and (Path(external_data).name != external_data or external_data == path.name):
        raise ArgumentError(
            f"external_data is {external_data!r}; allowed is the name of another file in the folder of {path.name!r}"
        )
    try:
        # In the same folder, so that renaming stays within one file system.
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
            written = Path(scratch) / path.name
            ir.save(model, written, "protobuf", external_data, size_threshold_bytes=_EXTERNAL_FROM)
            names = [path.name] if external_data is None else [external_data, path.name]
            for name in names:
                if (Path(scratch) / name).exists():
                    _flush(Path(scratch) / name)
                    os.replace(Path(scratch) / name, path.parent / name)
    except OSError as error:
        raise ArgumentError(f"cannot write {path}: {error.strerror or error}") from error


def _flush(path: Path) -> None:
    """Makes sure that the contents are on the disk before the name points at them."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
