"""Safetensors files, checked before they are mapped.

The header is read and validated by ourselves: length against the file, UTF-8, JSON without doubled keys, dtypes, shapes
and offsets that cover the data exactly once. Only then are tensors made, as views of the memory-mapped file, so nothing
larger than the file is ever allocated. JSON takes many times its text in memory, so a header has a limit of 16 MB
(enough for 100,000 tensors) and may not be full of tiny objects.
"""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ModelFormatError, all_problems

MAX_HEADER_BYTES = 16_000_000
_ENTRY_BYTES = 40  # no tensor is described in less: its name, dtype, shape and data_offsets
_TOO_LARGE = 2**63
_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, memory-mapped copy-on-write.

    Raises:
        ModelFormatError: naming the file, what was wanted and what was found.
    """
    header, start, size = _header(path)
    _check(path, header, size - start)
    if size == start:
        data = np.zeros(0, np.uint8)
    else:
        data = np.memmap(path, np.uint8, "c", start, size - start)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = _TYPES[entry["dtype"]]
        if begin == end:
            tensors[name] = torch.zeros(entry["shape"], dtype=dtype)
            continue
        part = data[begin:end]
        if (start + begin) % dtype.itemsize:
            part = np.array(part)  # older writers do not align tensors
        tensors[name] = torch.from_numpy(part).view(dtype).view(entry["shape"])
    return tensors


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            lead = file.read(8)
            if len(lead) < 8:
                raise ModelFormatError(
                    f"{path.name}: 8 bytes wanted for the header length, {len(lead)} found; the file is cut off"
                )
            (length,) = struct.unpack("<Q", lead)
            if length > MAX_HEADER_BYTES or length > size - 8:
                raise ModelFormatError(
                    f"{path.name}: the header claims {length} bytes, the file has {size - 8} left (at most "
                    f"{MAX_HEADER_BYTES} are allowed); the file is cut off or no safetensors file"
                )
            text = file.read(length)
    except OSError as error:
        raise ModelFormatError(f"{path.name}: cannot be read: {error.strerror}") from error
    objects, lists = text.count(b"{"), text.count(b"[")
    if max(objects, lists / 2) * _ENTRY_BYTES > length + 4 * _ENTRY_BYTES:
        raise ModelFormatError(
            f"{path.name}: the header is full of brackets, {objects} objects and {lists} lists in {length} bytes; a "
            f"tensor takes one object and two lists in at least {_ENTRY_BYTES} bytes"
        )
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path.name}: the header is no valid JSON: {error}") from error
    if not isinstance(header, dict):
        raise ModelFormatError(f"{path.name}: the header is a {type(header).__name__}, expected an object of tensors")
    header.pop("__metadata__", None)
    return header, 8 + length, size


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} stands twice")
        found[key] = value
    return found


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOO_LARGE


def _check(path: Path, header: dict[str, Any], available: int) -> None:
    problems: list[str] = []
    spans = []
    for name, entry in header.items():
        problem = _entry_problem(entry, available)
        if problem:
            problems.append(f"tensor {name!r} {problem}")
        else:
            spans.append((*entry["data_offsets"], name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin == end:
            continue
        if begin < position:
            problems.append(f"tensor {name!r} begins at {begin}, inside the one before it, which ends at {position}")
        elif begin > position:
            problems.append(f"{begin - position} bytes before tensor {name!r} belong to no tensor")
        position = max(position, end)
    if not problems and position != available:
        problems.append(f"the tensors take {position} bytes, the file has {available} after the header")
    if problems:
        raise ModelFormatError(all_problems(f"{path.name} is no valid safetensors file", problems))


def _entry_problem(entry: Any, available: int) -> str | None:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return "is not described by dtype, shape and data_offsets"
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _TYPES:
        return f"has dtype {str(entry['dtype'])[:80]!r}, known are {', '.join(_TYPES)}"
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or not all(_whole(d) for d in shape) or len(shape) > 16:
        return f"has shape {str(shape)[:80]}, expected up to 16 whole numbers"
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_whole(o) for o in offsets):
        return f"has data_offsets {str(offsets)[:80]}, expected two whole numbers"
    begin, end = offsets
    if math.prod(d or 1 for d in shape) >= _TOO_LARGE:  # the strides of an empty tensor overflow as well
        return f"has shape {shape}, too large to address"
    wanted = math.prod(shape) * _TYPES[entry["dtype"]].itemsize
    if end < begin or end > available:
        return f"lies at bytes {begin} to {end}, the file has {available}"
    if end - begin != wanted:
        return f"of shape {shape} and dtype {entry['dtype']} needs {wanted} bytes, {end - begin} are given"
    return None
