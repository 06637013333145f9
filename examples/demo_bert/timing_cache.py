"""The timing cache file: kernel timings of earlier builds, as JSON."""

import json
import os
from pathlib import Path
from typing import Any

from qontext.builder.tune import Tuner
from qontext.errors import ArgumentError

REPEATS = 7


def read_tuner(path: str | None) -> Tuner:
    """A tuner that knows the timings in the file; an empty one when there is no file yet.

    Raises ArgumentError for a file of another kind.
    """
    if path is None or not Path(path).exists():
        return Tuner(repeats=REPEATS)
    try:
        records = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArgumentError(f"-tcf {path}: cannot be read as JSON: {error}; delete it to time anew") from error
    if not _are_records(records):
        raise ArgumentError(
            f"-tcf {path}: no timing cache; expected {{machine: {{call: [[kernel, microseconds], ...]}}}}. Delete it "
            "to time anew"
        )
    return Tuner(records, repeats=REPEATS)


def write_records(path: str, tuner: Tuner) -> None:
    """Writes all timings that the tuner knows: to a temporary name first, so that no half file is ever seen."""
    target = Path(path)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        scratch.write_text(json.dumps(tuner.records, indent=1, sort_keys=True), encoding="utf-8")
        scratch.replace(target)
    except OSError as error:
        raise ArgumentError(f"-tcf {path}: cannot be written: {error}") from error


def _are_records(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    calls = [call for calls in value.values() for call in (calls.values() if isinstance(calls, dict) else [None])]
    return all(isinstance(timings, list) and all(_is_timing(t) for t in timings) for timings in calls)


def _is_timing(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], float)
