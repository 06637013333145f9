"""From a path, bytes or a message to an ONNX protobuf, with a plain sentence for everything that is none."""

import os
import stat
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from ..errors import ArgumentError, ModelFormatError

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | onnx.ModelProto

PROTOBUF_LIMIT = (1 << 31) - 1

_SIGNATURES = (
    (b"version https://git-lfs", "a git-lfs pointer, not the model itself; fetch it with `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive (perhaps of torch.save); export the model to ONNX"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\x80\x02", "a Python pickle, which is never opened; export the model to ONNX"),
    (b"\x80\x03", "a Python pickle, which is never opened; export the model to ONNX"),
    (b"\x80\x04", "a Python pickle, which is never opened; export the model to ONNX"),
    (b"\x80\x05", "a Python pickle, which is never opened; export the model to ONNX"),
    (b"\x89HDF", "an HDF5 file; export the model to ONNX"),
)


def load_proto(source: Source) -> tuple[onnx.ModelProto, str, Path | None]:
    """The message, what to call it in errors, and the folder of its external data (None unless it is a file).

    Raises:
        ArgumentError: the source is of another type.
        ModelFormatError: the file is missing, unreadable, too big, or no ONNX model.
    """
    if isinstance(source, onnx.ModelProto):
        return source, "the ONNX model given as a message", None
    if isinstance(source, (bytes, bytearray, memoryview)):
        name = "the ONNX model given as bytes"
        return parse(bytes(source), name), name, None
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return parse(_contents(path), str(path)), str(path), path.parent
    raise ArgumentError(
        f"an ONNX model was asked for from a {type(source).__name__}; allowed are a path, bytes and onnx.ModelProto"
    )


def _contents(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise ModelFormatError(f"{path} is {kind}; give the path of the .onnx file")
        if status.st_size > PROTOBUF_LIMIT:
            raise ModelFormatError(
                f"{path} has {status.st_size} bytes; a protobuf message holds at most {PROTOBUF_LIMIT}. Save the model "
                "with external data (onnx.save(..., save_as_external_data=True))"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelFormatError(f"cannot read {path}: {reason}") from error


def parse(data: bytes, name: str) -> onnx.ModelProto:
    """The message in `data`. Raises ModelFormatError that says what the data look like instead."""
    if not data:
        raise ModelFormatError(f"{name} is empty")
    other = _other_format(data)
    if other is not None:
        raise ModelFormatError(f"{name} is no ONNX model: it is {other}")
    if len(data) > PROTOBUF_LIMIT:
        raise ModelFormatError(f"{name} has {len(data)} bytes; a protobuf message holds at most {PROTOBUF_LIMIT}")
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelFormatError(
            f"{name} is no ONNX model, or cut off, or nested too deep: {len(data)} bytes found, the protobuf reader "
            f"says: {error}"
        ) from error
    if not model.HasField("graph"):
        raise ModelFormatError(f"{name} holds no graph; it is no ONNX model (found {len(data)} bytes)")
    return model


def _other_format(data: bytes) -> str | None:
    """What well-known format the data are of, None when they may be ONNX (which begins with a control character)."""
    for signature, what in _SIGNATURES:
        if data.startswith(signature):
            return what
    head = data[:512]
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in head):
        return "a safetensors file; import its folder instead" if data[8:10] == b'{"' else None
    begin = head.lstrip()[:64].lower()
    if begin.startswith((b"<!doctype", b"<html")):
        return "an HTML page, perhaps an error page of a download"
    if begin.startswith((b"{", b"[")):
        return "JSON text"
    return "text" if _is_text(head) else None


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # a character cut off at the end of the piece
    return True
