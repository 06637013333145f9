"""External data: weights of an ONNX model that stand in files beside it.

A model file is untrusted, and each entry in it names a file to read. So:

- only a model read from a path has external data; one given as bytes or as a message has none;
- a location is a relative path without "..", below the folder of the model; no part of it is a symbolic link;
- the file is a regular one with a single hard link, and the same file after opening as before (no swap in between);
- offset and length are plain numbers inside the file, and length is what type and shape need;
- keys other than location, offset, length and checksum are refused.

Every entry of the model is checked before the first file is opened. Data are mapped copy-on-write, not read: no byte
of a weight is touched before it is used.
"""

import hashlib
import mmap
import os
import re
import stat
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
import onnx_ir as ir

from ..errors import ModelFormatError, UnsupportedModelError
from .narrow import NARROW
from .onnx_tensors import byte_count
from .onnx_walk import Found

_KEYS = ("location", "offset", "length", "checksum")
_NUMBER = re.compile(r"[0-9]{1,19}")
# Copy-on-write, without setting memory aside for copies that nobody makes. Python names the flag from 3.13 on.
_PRIVATE = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_NO_FOLLOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Entry:
    """Where the data of one tensor stand. `length` is what type and shape need; `checksum` is SHA-1 of the file."""

    location: str
    offset: int
    length: int
    checksum: str | None


def read_entry(found: Found) -> Entry:
    """The entry of an external tensor whose type and shape are sound. Raises ValueError with one sentence."""
    tensor = found.tensor
    given: dict[str, str] = {}
    for pair in tensor.external_data:
        if pair.key not in _KEYS:
            raise ValueError(f"has the external data key {pair.key!r}; allowed are {', '.join(_KEYS)}")
        if pair.key in given:
            raise ValueError(f"has the external data key {pair.key!r} twice")
        if not isinstance(pair.value, str):
            raise ValueError(f"has the external data key {pair.key!r} with a value that is no UTF-8 text")
        given[pair.key] = pair.value
    wanted = byte_count(tensor)
    length = _number(given, "length", wanted)
    if length != wanted:
        kind = onnx.TensorProto.DataType.Name(tensor.data_type)
        raise ValueError(f"is {kind}{list(tensor.dims)}, {wanted} bytes, but its external data have length {length}")
    return Entry(_location(given), _number(given, "offset", 0), length, given.get("checksum"))


def _number(given: Mapping[str, str], key: str, default: int) -> int:
    text = given.get(key)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or int(text) >= 1 << 63:
        raise ValueError(f"has the external data {key} {text[:40]!r}; allowed are whole numbers from 0 to 2^63 - 1")
    return int(text)


def _location(given: Mapping[str, str]) -> str:
    text = given.get("location", "")
    path = PurePosixPath(text)
    sound = text and len(text) <= 4096 and "\\" not in text and text.isprintable()
    if not sound or path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(
            f"names the external data location {text[:100]!r}; allowed is a relative path below the model's folder, "
            "without '..'"
        )
    return str(path)


class ExternalFiles:
    """The files beside one model, each opened and mapped once.

    Args:
        folder: the folder of the model.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._maps: dict[str, mmap.mmap | bytes] = {}

    def check(self, entries: Iterable[tuple[str, Entry]]) -> list[str]:
        """Looks at every file without opening it. Returns one sentence for each tensor that it refuses."""
        problems = []
        sizes: dict[str, int | str] = {}
        for where, entry in entries:
            if entry.location not in sizes:
                sizes[entry.location] = self._size(entry.location)
            size = sizes[entry.location]
            if isinstance(size, str):
                problems.append(f"{where}: {entry.location!r} {size}")
            elif entry.offset + entry.length > size:
                problems.append(
                    f"{where}: bytes {entry.offset} to {entry.offset + entry.length} of {entry.location!r}, which has "
                    f"{size}; the file is cut off or belongs to another model"
                )
        return problems

    def _size(self, location: str) -> int | str:
        """Bytes of a file, or why it is refused."""
        path = self._folder
        try:
            for part in PurePosixPath(location).parts[:-1]:
                path = path / part
                refusal = _refusal(path.lstat(), parent=True)
                if refusal is not None:
                    return refusal
            status = (self._folder / location).lstat()
        except OSError as error:
            return f"cannot be read beside the model: {error.strerror}"
        return _refusal(status) or status.st_size

    def map(self, entry: Entry) -> mmap.mmap | bytes:
        """The mapped file of an entry that `check` let pass. Raises ModelFormatError when it changed since then."""
        if entry.location not in self._maps:
            self._maps[entry.location] = self._open(entry.location)
        mapped = self._maps[entry.location]
        if entry.offset + entry.length > len(mapped):
            raise ModelFormatError(f"external data {entry.location!r} became shorter while the model was read")
        return mapped

    def verify(self, entries: Iterable[Entry]) -> None:
        """Compares checksums where the model gives them. Raises ModelFormatError for the first that differs."""
        for location, wanted in dict.fromkeys((e.location, e.checksum) for e in entries if e.checksum is not None):
            mapped = self.map(Entry(location, 0, 0, None))
            found = hashlib.sha1(mapped, usedforsecurity=False).hexdigest()  # ONNX knows no other checksum
            if found != str(wanted).lower():
                raise ModelFormatError(
                    f"external data {location!r} have the SHA-1 {found}, the model asks for {wanted!r}; the file is "
                    "damaged or belongs to another model"
                )

    def _open(self, location: str) -> mmap.mmap | bytes:
        """Walks down part by part without following links, so that nothing can be swapped on the way."""
        parts = PurePosixPath(location).parts
        try:
            held = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for part in parts[:-1]:
                    below = os.open(part, _NO_FOLLOW | os.O_DIRECTORY, dir_fd=held)
                    os.close(held)
                    held = below
                before = os.stat(parts[-1], dir_fd=held, follow_symlinks=False)
                refusal = _refusal(before)
                if refusal is not None:
                    raise ModelFormatError(f"external data {location!r} {refusal}")
                # Not blocking: a pipe that was put there after the look above must not hold us up.
                file = os.open(parts[-1], _NO_FOLLOW | os.O_NONBLOCK, dir_fd=held)
            finally:
                os.close(held)
            try:
                after = os.fstat(file)
                if _identity(before) != _identity(after) or _refusal(after) is not None:
                    raise ModelFormatError(f"external data {location!r} changed while the model was read")
                return mmap.mmap(file, 0, _PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) if after.st_size else b""
            finally:
                os.close(file)
        except OSError as error:
            raise ModelFormatError(f"cannot read external data {location!r}: {error.strerror}") from error


def _identity(status: os.stat_result) -> tuple[int, ...]:
    """Which file this is. The number of a deleted file may be given to a new one, its time of change is not."""
    return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size


def _refusal(status: os.stat_result, parent: bool = False) -> str | None:
    """Why a file may not be read, None when it may."""
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link, which could lead anywhere; put the file itself beside the model"
    if parent:
        return None if stat.S_ISDIR(status.st_mode) else "lies in something that is no folder"
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    if status.st_nlink != 1:
        return f"has {status.st_nlink} hard links, so it may be another file's content; copy it"
    return None


def tensor_of(external: ir.ExternalTensor, files: ExternalFiles) -> ir.TensorProtocol:
    """The tensor itself, a view of the mapped file. Raises UnsupportedModelError for a type that is not held so."""
    kind = external.dtype
    shape = list(external.shape.numpy())
    if kind.bitwidth < 8 and kind not in NARROW:
        raise UnsupportedModelError(
            f"weight {external.name!r} is {kind.name} in external data; allowed are integers of 2 and 4 bits, "
            "and types of 8 bits or more"
        )
    entry = Entry(str(PurePosixPath(external.location)), external.offset or 0, external.nbytes, None)
    mapped = files.map(entry)
    if kind in NARROW:
        return ir.Tensor(_unpacked(mapped, entry, shape, kind), dtype=kind, name=external.name)
    dtype = np.dtype(kind.numpy())
    count = entry.length // dtype.itemsize
    array = np.frombuffer(mapped, dtype, count, entry.offset) if count else np.empty(0, dtype)
    if not array.flags.aligned:
        array = array.copy()
    return ir.Tensor(array.reshape(shape), dtype=kind, name=external.name)


def _unpacked(mapped: mmap.mmap | bytes, entry: Entry, shape: list[int], kind: ir.DataType) -> np.ndarray:
    """Several values to a byte, the first in the lowest bits."""
    packed = np.frombuffer(mapped, np.uint8, entry.length, entry.offset)
    bits = kind.bitwidth
    parts = [packed >> shift & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    values = np.stack(parts, -1).reshape(-1)[: int(np.prod(shape))].astype(np.int8)
    if kind in (ir.DataType.INT4, ir.DataType.INT2):
        values = np.where(values >= 1 << (bits - 1), values - (1 << bits), values)
    return values.astype(kind.numpy()).reshape(shape)
