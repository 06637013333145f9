"""The phrasings: training templates, and held-out templates for development and for the test.

Each set has its own table, and the held-out tables must not meet the training table (`held_out.py`).

A template is a sentence with slots (`{country}`). `(a|b|)` in it stands for one of several wordings.
The first column names the relation whose answer the sentence gives, or just a subject (`country`, `city`,
`landmark`) for a sentence about several relations at once, which only training uses.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from facts import RELATIONS, View

DATA = Path(__file__).parent / "data"
SLOT = re.compile(r"\{(\w+)\}")
CHOICE = re.compile(r"\(([^()]*)\)")
SUBJECTS = ("country", "city", "landmark")


@dataclass(frozen=True)
class Template:
    """One row of a table; `name` is a relation or a subject."""

    name: str
    text: str

    @property
    def subject(self) -> str:
        """The kind of view that fills the slots."""
        return RELATIONS[self.name].subject if self.name in RELATIONS else self.name

    @property
    def slots(self) -> set[str]:
        """Names of the slots."""
        return set(SLOT.findall(self.text))

    def wordings(self) -> Iterator[str]:
        """The template once for every combination of its choices."""
        parts = CHOICE.split(self.text)
        choices = [part.split("|") if at % 2 else [part] for at, part in enumerate(parts)]
        for picked in itertools.product(*choices):
            yield " ".join("".join(picked).split()).replace(" .", ".").replace(" ,", ",")


def read_rows(name: str) -> list[dict[str, str]]:
    """Rows of `data/<name>.tsv`."""
    with (DATA / f"{name}.tsv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def read_templates(name: str) -> list[Template]:
    """Rows of `data/templates_<name>.tsv`, in order.

    Raises:
        ValueError: a row names no known relation or subject.
    """
    rows = [Template(row["relation"], row["template"]) for row in read_rows(f"templates_{name}")]
    unknown = sorted({row.name for row in rows} - set(RELATIONS) - set(SUBJECTS))
    if unknown:
        raise ValueError(f"templates_{name}.tsv: unknown relations {unknown}; known are {[*RELATIONS]}")
    return rows


def fill(wording: str, view: View) -> tuple[str, dict[str, tuple[int, int]]]:
    """The sentence as the wording has it, and the character span of each slot's value in it."""
    text, spans = "", {}
    for at, part in enumerate(SLOT.split(wording)):
        start = len(text)
        text += view[part] if at % 2 else part
        if at % 2:
            spans[part] = (start, len(text))
    return text, spans


def capitalised(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]
