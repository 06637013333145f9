"""Timings kept on disk between builds, one small JSON file a machine.

Files lie in `$QONTEXT_CACHE_DIR`, else `$XDG_CACHE_HOME/qontext`, else `~/.cache/qontext`, in a folder `tuning`. They
hold numbers and names only; a file that cannot be read or written costs time, never a result.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

Rows = dict[str, list[list[str | float]]]
VERSION = 2


def cache_folder() -> Path:
    """Where this user's caches lie; it need not exist."""
    own = os.environ.get("QONTEXT_CACHE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "qontext"


def _file(machine: str) -> Path:
    return cache_folder() / "tuning" / f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"


def read_timings(machine: str) -> tuple[Rows, str]:
    """Timings of a machine, and a message when there is a file that cannot be used (it is then as if there were none).

    Args:
        machine: the machine key, see `tune.machine_key`.
    """
    path = _file(machine)
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, f"the cached timings {path.name} cannot be read ({error}); kernels are timed anew"
    if not isinstance(held, dict) or held.get("version") != VERSION or held.get("machine") != machine:
        return {}, f"the cached timings {path.name} are of another version or machine; kernels are timed anew"
    rows = held.get("timings")
    if not isinstance(rows, dict) or not all(isinstance(k, str) and _is_row(v) for k, v in rows.items()):
        return {}, f"the cached timings {path.name} are damaged; kernels are timed anew"
    return rows, ""


def _is_row(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], (int, float))
        and not isinstance(pair[1], bool)
        for pair in value
    )


def write_timings(machine: str, rows: Rows) -> str:
    """Adds timings to the file of a machine, whole or not at all; gives a message when that was not possible.

    What another process has written in the meantime is kept, unless the same call is timed here too.
    """
    path = _file(machine)
    merged = {**read_timings(machine)[0], **rows}
    text = json.dumps({"version": VERSION, "machine": machine, "timings": merged}, indent=0, sort_keys=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".tuning.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        return f"timings were not cached: {error.strerror or error}"
    return ""
