"""Printing: results to stdout (text, or JSON with --json), progress and errors to stderr."""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_errors = Console(stderr=True)


def show(value: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Prints a result: `value` as JSON, or what `text` makes of it."""
    if as_json:
        json.dump(value, sys.stdout, ensure_ascii=False, indent=1)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(text() + "\n")


def note(text: str) -> None:
    """A line on stderr."""
    sys.stderr.write(text + "\n")


@contextlib.contextmanager
def working(text: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr while something takes its time; nothing when stderr is no terminal.

    Yields a function that changes the text.
    """
    if not _errors.is_terminal:
        yield lambda changed: None
        return
    with _errors.status(text) as status:
        yield lambda changed: status.update(f"{text}: {changed[:100]}")


@contextlib.contextmanager
def counting(text: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; yields a function that advances it."""
    if not _errors.is_terminal:
        yield lambda count: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_errors, transient=True) as progress:
        task = progress.add_task(text, total=total)
        yield lambda count: progress.advance(task, count)
