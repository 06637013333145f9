"""From the MODEL of a command line to an engine or a pipeline."""

import sys
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from .console import note, working


def open_engine(
    model: Any,
    precision: str,
    device: str,
    verbose: bool = False,
    tune: bool = True,
    task: str | None = None,
    kv_cache: Any = None,
) -> Any:
    """The engine behind a MODEL: a `.qx` file is loaded, everything else (an imported model too) is built."""
    from ..engine import build, load
    from ..importers import import_model

    if str(model).endswith(".qx"):
        return load(model)
    with working(f"building {getattr(model, 'name', model)}") as tell:

        def log(text: str) -> None:
            tell(text)
            if verbose:
                note(text)

        return build(import_model(model, task=task), precision, device, tune=tune, kv_cache=kv_cache, log=log)


def open_pipeline(task: str, model: str, precision: str, device: str, verbose: bool = False) -> Any:
    """The pipeline of a task over a MODEL."""
    from ..tasks import pipeline

    return pipeline(task, open_engine(model, precision, device, verbose, tune=False, task=task))


def read_texts(texts: list[str] | None, file: Path | None) -> list[str]:
    """Texts of a command: arguments, or the lines of a file or of standard input.

    Raises ArgumentError when there are none, or both, or the file cannot be read.
    """
    if texts and file:
        raise ArgumentError("give texts as arguments or in --file, not both")
    if texts:
        return texts
    if file is None and sys.stdin.isatty():
        raise ArgumentError("no text was given; pass it as an argument, or a file with --file ('-' for standard input)")
    try:
        if file is None or str(file) == "-":
            lines = sys.stdin.read().splitlines()
        else:
            lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"cannot read {file}: {error}") from error
    if not lines:
        raise ArgumentError("the input holds no text")
    return lines
