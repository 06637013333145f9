"""Runs the lesson and writes docs/transformer-blocks.md, its pictures, and the notebook.

python examples/transformer_blocks/write.py
"""

import ast
import io
import json
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs"
sys.path.insert(0, str(HERE))

import block  # noqa: E402
from block import Picture, Text  # noqa: E402
from lesson import CELLS  # noqa: E402


@dataclass(frozen=True)
class Ran:
    """A cell after it ran: what it printed, and the value of its last expression."""

    kind: str
    source: str
    printed: str = ""
    value: Any = None


def run_cells(cells: list[tuple[str, str]] = CELLS) -> list[Ran]:
    """Runs the code cells one after the other in one namespace, as a notebook does."""
    namespace: dict[str, Any] = {"__name__": "lesson_run"}
    done = []
    for kind, source in cells:
        if kind == "md":
            done.append(Ran(kind, source))
            continue
        out = io.StringIO()
        with redirect_stdout(out):
            value = _run(source, namespace)
        done.append(Ran(kind, source, out.getvalue(), value))
    return done


def _run(source: str, namespace: dict[str, Any]) -> Any:
    tree = ast.parse(source)
    last = tree.body[-1] if isinstance(tree.body[-1], ast.Expr) else None
    if last is not None:
        tree.body.pop()
    run = compile(tree, "<cell>", "exec")
    exec(run, namespace)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)


def page(cells: list[Ran]) -> tuple[str, dict[str, str]]:
    """The page, and its pictures by file name."""
    parts, pictures = [], {}
    for cell in cells:
        if cell.kind == "md":
            parts.append(cell.source.strip())
            continue
        shown = isinstance(cell.value, (Picture, Text)) and "\n" not in cell.source
        if not shown:
            parts.append(f"```python\n{cell.source}\n```")
        if isinstance(cell.value, Picture):
            pictures[f"{cell.value.name}.svg"] = cell.value.drawing
            what = cell.value.name.rpartition("-")[2]
            parts.append(f'![{cell.value.name.replace("-", ", ")}](transformer-blocks/{cell.value.name}.svg "{what}")')
        elif isinstance(cell.value, Text):
            parts.append(cell.value.text)
        elif cell.value is not None:
            parts.append(f"```\n{cell.value!r}\n```")
    return "\n\n".join(parts) + "\n", pictures


def notebook(cells: list[Ran]) -> str:
    """The notebook with the outputs of this run."""
    made = []
    for number, cell in enumerate(cells):
        lines = cell.source.strip().splitlines(keepends=True)
        if cell.kind == "md":
            made.append({"cell_type": "markdown", "id": f"cell-{number}", "metadata": {}, "source": lines})
            continue
        made.append(
            {
                "cell_type": "code",
                "execution_count": None,
                "id": f"cell-{number}",
                "metadata": {},
                "outputs": _outputs(cell),
                "source": lines,
            }
        )
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    whole = {
        "cells": made,
        "metadata": {**kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _outputs(cell: Ran) -> list[dict[str, Any]]:
    data: dict[str, Any] = {}
    if isinstance(cell.value, Picture):
        data = {"image/svg+xml": cell.value.drawing.splitlines(keepends=True)}
    elif isinstance(cell.value, Text):
        data = {"text/markdown": cell.value.text.splitlines(keepends=True)}
    elif cell.value is not None:
        data = {"text/plain": [repr(cell.value)]}
    if not data:
        return []
    data.setdefault("text/plain", [str(cell.value).partition("\n")[0]])
    return [{"data": data, "metadata": {}, "output_type": "display_data"}]


def main() -> None:
    """Writes everything."""
    block.TRIES = 7
    cells = run_cells()
    text, pictures = page(cells)
    (DOCS / "transformer-blocks.md").write_text(text, encoding="utf-8")
    (DOCS / "transformer-blocks").mkdir(exist_ok=True)
    for name, drawing in pictures.items():
        (DOCS / "transformer-blocks" / name).write_text(drawing, encoding="utf-8")
    (HERE / "transformer_blocks.ipynb").write_text(notebook(cells), encoding="utf-8")
    print(f"wrote the page, {len(pictures)} pictures and the notebook", file=sys.stderr)


if __name__ == "__main__":
    main()
