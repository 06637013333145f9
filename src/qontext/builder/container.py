"""The container of an engine file: one uncompressed zip in which every byte is covered by a SHA-256.

- Entries are stored, never compressed; `weights.safetensors` starts on a 64-byte border (padding in the extra field),
  and so does every tensor in it, so that tensors are used straight from the memory-mapped file.
- Each tensor has its own hash, listed in `hashes.json` and checked in parallel.
- The archive comment is `qontext-engine/1 ` and the SHA-256 of all bytes that belong to no tensor and not to that
  comment: local headers, padding, small entries, the safetensors header, the central directory.
"""

import hashlib
import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..dtypes import from_torch
from ..errors import EngineFileError, all_problems

MAGIC = b"qontext-engine/1 "
WEIGHTS = "weights.safetensors"
ALIGN = 64
_HASH_CHARS = 64
_SAFE_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8",
    "bool": "BOOL",
}  # fmt: skip
_TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def _bytes(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.zeros(0, np.uint8)


def _parallel_hashes(parts: Sequence[Any]) -> list[str]:
    """SHA-256 of each part; hashlib lets go of the interpreter lock, so threads use all cores."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(lambda part: hashlib.sha256(part).hexdigest(), parts))


def write_container(
    path: str | os.PathLike[str], texts: Mapping[str, bytes], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Writes an engine file to a temporary name in the same folder, then renames it.

    Raises EngineFileError when the folder is missing, not writable or full; nothing is left behind then.
    """
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise EngineFileError(
            f"cannot write {target.name}: {error.strerror}; choose a folder you may write to"
        ) from error
    try:
        with os.fdopen(handle, "w+b") as file:
            _write(file, texts, tensors)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise EngineFileError(
                f"cannot write {target.name}: {error.strerror}; the old file, if any, is untouched"
            ) from error
        raise


def _write(file: Any, texts: Mapping[str, bytes], tensors: Mapping[str, torch.Tensor]) -> None:
    names = list(tensors)
    parts = [_bytes(tensors[n]) for n in names]
    hashes = dict(zip(names, _parallel_hashes(parts), strict=True))
    header: dict[str, Any] = {}
    chunks: list[Any] = []
    position = 0
    for name, part in zip(names, parts, strict=True):
        shape = list(tensors[name].shape)
        header[name] = {
            "dtype": _SAFE_NAMES[from_torch(tensors[name].dtype).name],
            "shape": shape,
            "data_offsets": [position, position + part.nbytes],
        }
        chunks.append(part)
        position += part.nbytes
        gap = -position % ALIGN
        if gap:  # safetensors allows no holes: padding is a tensor too
            pad = np.zeros(gap, np.uint8)
            header[f"__pad_{position}"] = {"dtype": "U8", "shape": [gap], "data_offsets": [position, position + gap]}
            hashes[f"__pad_{position}"] = hashlib.sha256(pad.tobytes()).hexdigest()
            chunks.append(pad)
            position += gap
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-(len(head) + 8) % ALIGN)
    small = {**texts, "hashes.json": json.dumps(hashes, indent=0).encode()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, text in small.items():
            archive.writestr(_entry(name), text)
        info = _entry(WEIGHTS)
        start = file.tell()
        # local header: 30 bytes, the name, our extra field, and 20 bytes of zip64 sizes that force_zip64 adds
        lead = start + 30 + len(WEIGHTS) + 20 + 4
        info.extra = struct.pack("<HH", 0x5141, -lead % ALIGN) + b"\0" * (-lead % ALIGN)
        with archive.open(info, "w", force_zip64=True) as entry:
            first = file.tell()
            entry.write(struct.pack("<Q", len(head)) + head)
            for chunk in chunks:
                entry.write(memoryview(chunk))
        archive.comment = MAGIC + b"0" * _HASH_CHARS
    if first % ALIGN:
        raise AssertionError(f"weights start at {first}, not on a {ALIGN}-byte border")
    data = (first + 8 + len(head), first + 8 + len(head) + position)
    file.flush()
    digest = _structure_hash(file, data)
    file.seek(-_HASH_CHARS, os.SEEK_END)
    file.write(digest.encode())


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # no clock: equal engines are equal files
    info.external_attr = 0o644 << 16
    return info


def _structure_hash(file: Any, data: tuple[int, int]) -> str:
    """SHA-256 of all bytes outside `data` and before the hash itself."""
    size = file.seek(0, os.SEEK_END)
    digest = hashlib.sha256()
    for begin, end in ((0, data[0]), (data[1], size - _HASH_CHARS)):
        file.seek(begin)
        left = end - begin
        while left > 0:
            block = file.read(min(left, 1 << 20))
            if not block:
                break
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


class Container:
    """An engine file, opened and checked.

    Args:
        path: the file.
    Raises:
        EngineFileError: with the likely cause, before anything in the file is used.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not self.path.is_file():
            raise EngineFileError(f"no engine file at {self.path.name!r}")
        with open(self.path, "rb") as file:
            self.data, self.header = self._structure(file)
            with zipfile.ZipFile(file) as archive:
                self.texts = {i.filename: archive.read(i) for i in archive.infolist() if i.filename != WEIGHTS}
        self.tensors = self._tensors()

    def _structure(self, file: Any) -> tuple[tuple[int, int], dict[str, Any]]:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        first = file.read(4)
        if size == 0:
            raise self._error("is empty; the copy or the build was cut off")
        if first != b"PK\x03\x04":
            raise self._error(
                f"is no engine file: it begins with {first!r}, an engine begins with {b'PK' + bytes([3, 4])!r}"
            )
        file.seek(max(0, size - len(MAGIC) - _HASH_CHARS))
        tail = file.read()
        if not tail.startswith(MAGIC):
            if tail.startswith(MAGIC[:-3]):
                raise self._error(
                    f"has format {tail[: len(MAGIC)]!r}, this version reads {MAGIC!r}; build it again here"
                )
            raise self._error(
                "is truncated or altered (the end mark of an engine file is missing); a text-mode transfer or another "
                "zip program does that. Copy it again in binary mode, or build it again"
            )
        try:
            with zipfile.ZipFile(file) as archive:
                info = archive.getinfo(WEIGHTS)
                file.seek(info.header_offset + 26)
                name, extra = struct.unpack("<HH", file.read(4))
                begin = info.header_offset + 30 + name + extra
                end = begin + info.file_size
            file.seek(begin)
            (length,) = struct.unpack("<Q", file.read(8))
            if end > size or begin + 8 + length > end:
                raise self._error(f"ends inside the weights: {end} bytes wanted, {size} found")
            data = (begin + 8 + length, end)
            if _structure_hash(file, data) != tail[len(MAGIC) :].decode("ascii", "replace"):
                raise self._error(
                    "is damaged: its headers do not match their SHA-256. Copy it again, or build it again"
                )
            file.seek(begin + 8)
            header = json.loads(file.read(length))
        except (zipfile.BadZipFile, KeyError, struct.error, ValueError, NotImplementedError, OSError) as error:
            raise self._error(f"is damaged: {error}. Copy it again, or build it again") from error
        return data, header

    def _tensors(self) -> dict[str, torch.Tensor]:
        begin, end = self.data
        held = np.memmap(self.path, np.uint8, "c", begin, end - begin) if end > begin else np.zeros(0, np.uint8)
        expected = json.loads(self.texts["hashes.json"])
        spans = {n: held[e["data_offsets"][0] : e["data_offsets"][1]] for n, e in self.header.items()}
        found = dict(zip(spans, _parallel_hashes(list(spans.values())), strict=True))
        wrong = [f"tensor {n!r} does not match its SHA-256" for n, h in found.items() if expected.get(n) != h]
        wrong += [f"tensor {n!r} is listed but missing" for n in expected if n not in found]
        if wrong:
            raise self._error(all_problems("is damaged; copy it again, or build it again", wrong))
        result = {}
        for name, entry in self.header.items():
            if not name.startswith("__pad_"):
                dtype = _TORCH[entry["dtype"]]
                flat = torch.from_numpy(spans[name]) if spans[name].size else torch.zeros(0, dtype=torch.uint8)
                result[name] = flat.view(dtype).view(entry["shape"])
        return result

    def _error(self, what: str) -> EngineFileError:
        return EngineFileError(f"{self.path.name} {what}")
