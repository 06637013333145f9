"""Generates the training texts from the fact table, the training templates and the wrappers.

A text is one sentence, a sentence with a phrase around it, two sentences joined, a sentence beside one
that has no facts in it, or a list of facts.
Each carries at most one `focus`, the character span of a one-word value that training will mask.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from facts import RELATIONS, FactBook, View, is_single_word
from templates import SUBJECTS, capitalised, fill, read_rows, read_templates
from variation import Variation

Span = tuple[int, int]

# Shares of the kinds of text; the rest are lists.
SINGLE, WRAPPED, JOINED, BESIDE = 0.45, 0.15, 0.2, 0.12
# How often the focus is the answer of the sentence's relation, or any of its values; else there is none.
FOCUS_ANSWER, FOCUS_ANY = 0.75, 0.15


@dataclass(frozen=True)
class Text:
    """A training text with the spans of its one-word values; `answers` are those its relation asks for."""

    text: str
    answers: tuple[Span, ...]
    values: tuple[Span, ...]

    def shifted(self, by: int) -> Text:
        """The spans moved `by` characters to the right, for a text placed inside a longer one."""
        return replace(
            self,
            answers=tuple((start + by, end + by) for start, end in self.answers),
            values=tuple((start + by, end + by) for start, end in self.values),
        )

    def __add__(self, other: Text) -> Text:
        moved = other.shifted(len(self.text))
        return Text(self.text + other.text, self.answers + moved.answers, self.values + moved.values)


def plain(text: str) -> Text:
    """A text without values."""
    return Text(text, (), ())


class Corpus:
    """A seeded stream of training texts."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.book = FactBook()
        self.sources: dict[str, list[tuple[list[str], list[View]]]] = {}
        for template in read_templates("train"):
            views = list(self.book.views(template.subject, template.slots))
            self.sources.setdefault(template.name, []).append((list(template.wordings()), views))
        self.wrappers: dict[str, list[str]] = {}
        for row in read_rows("wrappers"):
            self.wrappers.setdefault(row["kind"], []).append(row["text"])
        self.variation = Variation(self.wrappers["aside"])

    def sentence(self) -> Text:
        """One sentence from one training template; relations come up equally often."""
        name = self.random.choice([*RELATIONS, *SUBJECTS])
        wordings, views = self.random.choice(self.sources[name])
        wording = self.variation.apply(self.random.choice(wordings), self.random)
        return self.filled(name, wording, self.random.choice(views))

    def filled(self, name: str, wording: str, view: View) -> Text:
        """A wording filled with a view's values."""
        text, spans = fill(wording, view)
        values = {slot: span for slot, span in spans.items() if is_single_word(view[slot])}
        answer = RELATIONS[name].answer if name in RELATIONS else ""
        answers = [span for slot, span in values.items() if slot == answer or not answer]
        return Text(text, tuple(answers), tuple(values.values()))

    def wrapped(self) -> Text:
        """A statement with an opening phrase, a closing phrase or both."""
        text = self.statement()
        if self.random.random() < 0.6:
            text = plain(self.random.choice(self.wrappers["prefix"]) + " ") + text
        if self.random.random() < 0.6:
            return text + plain(self.random.choice(self.wrappers["suffix"]))
        return text + plain(".")

    def statement(self) -> Text:
        """A sentence that ends in a full stop, without that stop."""
        while True:
            text = self.sentence()
            if text.text.endswith(".") and "?" not in text.text:
                return replace(text, text=text.text[:-1])

    def joined(self) -> Text:
        """Two statements about two subjects, so that the model learns which subject an answer belongs to."""
        joiner = self.random.choice(self.wrappers["joiner"])
        first, second = self.statement(), self.statement()
        if joiner == ".":
            second = replace(second, text=capitalised(second.text))
        return first + plain(f"{joiner} ") + second + plain(".")

    def beside(self) -> Text:
        """A sentence before or after one that says nothing about it."""
        scene = self.random.choice(self.wrappers["scene"])
        if self.random.random() < 0.5:
            return plain(f"{scene} ") + self.sentence()
        return self.sentence() + plain(f" {scene}")

    def listed(self) -> Text:
        """Two to five facts of one relation, behind one another."""
        name = self.random.choice([*RELATIONS])
        relation = RELATIONS[name]
        views = list(self.book.views(relation.subject, {relation.key, relation.answer}))
        link = self.random.choice(self.wrappers["link"])
        gap = "" if link in ":," else " "
        wording = f"{{{relation.key}}}{gap}{link} {{{relation.answer}}}"
        rows = [self.filled(name, wording, view) for view in self.random.sample(views, self.random.randint(2, 5))]
        text = plain(self.random.choice(self.wrappers[name]) + ": ")
        for at, row in enumerate(rows):
            text = text + (plain("; ") + row if at else row)
        return text + plain(".")

    def texts(self) -> Iterator[tuple[str, Span | None]]:
        """Texts without end, each with its focus or `None`."""
        kinds = [self.sentence, self.wrapped, self.joined, self.beside, self.listed]
        weights = [SINGLE, WRAPPED, JOINED, BESIDE, 1 - SINGLE - WRAPPED - JOINED - BESIDE]
        while True:
            text = self.random.choices(kinds, weights)[0]()
            draw = self.random.random()
            spans = text.answers if draw < FOCUS_ANSWER else text.values if draw < FOCUS_ANSWER + FOCUS_ANY else ()
            yield capitalised(text.text), self.random.choice(spans) if spans else None

    def vocabulary(self) -> set[str]:
        """Every piece of text a training text may contain."""
        wordings = {wording for sources in self.sources.values() for texts, _ in sources for wording in texts}
        phrases = {text for texts in self.wrappers.values() for text in texts}
        return wordings | self.variation.vocabulary() | self.book.words() | phrases


def main() -> None:
    """Write the first texts of the corpus to a file, for people to read."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    texts = Corpus(options.seed).texts()
    options.out.write_text("".join(f"{next(texts)[0]}\n" for _ in range(options.texts)), encoding="utf-8")


if __name__ == "__main__":
    main()
