"""A report about a model that cannot be imported, built or measured: what is wrong, in words."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, QontextError
from .environment import environment, scrubbed


@dataclass(frozen=True)
class Failure:
    """What went wrong with a model. `data` is JSON-able; `str()` gives it as text.

    data: model, kind and code of the error, stage, summary, problems (one sentence each), meaning, environment
    """

    data: dict[str, Any]

    def __str__(self) -> str:
        lines = [f"{self.data['model']}: {self.data['kind']} while {self.data['stage']}", self.data["summary"]]
        return "\n".join([*lines, *(f"  - {p}" for p in self.data["problems"])])

    def html(self) -> str:
        from .html import failure_page

        return failure_page(self.data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page. Raises ArgumentError when the file cannot be written."""
        write_page(path, self.html())


def failure(model: str, error: Exception, stage: str = "importing and building") -> Failure:
    """The report of an error.

    Args:
        model: what was asked for; only its last part is shown.
        error: what was raised. What is no QontextError is a fault of qontext and is called so.
    """
    known = isinstance(error, QontextError)
    text = error.message if isinstance(error, QontextError) else f"{type(error).__name__}: {error}"
    summary, *rest = text.splitlines() or [""]
    problems = [line.strip().removeprefix("- ") for line in rest if line.strip()]
    meaning = (type(error).__doc__ or "").splitlines()[0] if known else "This is a fault of qontext; please report it."
    data = {
        "model": Path(model).name or model,
        "kind": type(error).__name__ if known else "internal error",
        "code": error.code if isinstance(error, QontextError) else "QX999",
        "stage": stage,
        "summary": summary,
        "problems": problems,
        "meaning": meaning,
        "environment": environment(),
    }
    return Failure(scrubbed(data))


def write_page(path: str | os.PathLike[str], text: str) -> None:
    """Writes a page or a picture. Raises ArgumentError when the file cannot be written."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"cannot write {Path(path).name}: {error.strerror}") from error
