"""Keeps the held-out templates out of training, and asks them of every fact.

Two things are checked: that no held-out wording is a near copy of a training wording, and (with
`held_out_pattern`) that no generated training text could have come from a held-out template.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from facts import RELATIONS, FactBook, is_single_word, normalise
from templates import CHOICE, SLOT, Template, capitalised, fill, read_rows

# Two wordings with a larger share of common word pairs are one wording with an edit, not two.
MAX_OVERLAP = 0.5
THIRDS = 3


def word_pairs(wording: str) -> set[tuple[str, str]]:
    """Neighbouring words, slots by name, with the two ends of the sentence; punctuation does not count."""
    words = ["<", *re.findall(r"\{\w+\}|[a-z]+", wording.lower()), ">"]
    return set(itertools.pairwise(words))


def overlap(one: str, other: str) -> float:
    """Share of word pairs that two wordings have in common, 0 to 1."""
    first, second = word_pairs(one), word_pairs(other)
    return len(first & second) / len(first | second)


def words_of(wording: str) -> set[str]:
    """The words of a wording outside its slots."""
    return set(re.findall(r"[a-z]+", SLOT.sub(" ", wording.lower())))


def check_held_out(train: list[Template], held_out: list[Template]) -> None:
    """Hold the tables apart.

    Raises:
        ValueError: names every held-out template that is too near a training one, carries a choice,
            or uses a word that training never uses.
    """
    wordings = [wording for template in train for wording in template.wordings()]
    phrases = [row["text"] for row in read_rows("wrappers")]
    known = {word for wording in [*wordings, *phrases] for word in words_of(wording)}
    problems = []
    for template in held_out:
        share, nearest = max((overlap(template.text, wording), wording) for wording in wordings)
        if share > MAX_OVERLAP:
            problems.append(f"{template.text!r} overlaps {share:.2f} (at most {MAX_OVERLAP}) with {nearest!r}")
        if CHOICE.search(template.text):
            problems.append(f"{template.text!r} has choices; write each held-out wording out")
        if unseen := words_of(template.text) - known:
            problems.append(f"{template.text!r} uses words unseen in training: {sorted(unseen)}")
    if problems:
        raise ValueError("held-out templates:\n" + "\n".join(problems))


def held_out_pattern(held_out: list[Template]) -> re.Pattern[str]:
    """Matches any text that a held-out template could have made, with any fact or mask in its slots."""
    value = r"[\w\[\]' -]{1,60}"
    patterns = [
        "".join(value if at % 2 else re.escape(part) for at, part in enumerate(SLOT.split(text)))
        for text in (template.text.rstrip(".") for template in held_out)
    ]
    return re.compile("|".join(patterns), re.IGNORECASE)


def questions(book: FactBook, held_out: list[Template]) -> Iterator[tuple[Template, str, str]]:
    """Held-out questions: template, sentence with `[MASK]`, expected token.

    Each template is asked of every third fact, and the next template of the facts after those, so that many
    phrasings and all facts come up. A fact whose answer is more than one word cannot be asked for by one
    mask and is left out.
    """
    for at, template in enumerate(held_out):
        answer = RELATIONS[template.name].answer
        views = [view for view in book.views(template.subject, template.slots) if is_single_word(view[answer])]
        for view in views[at % THIRDS :: THIRDS]:
            sentence, _ = fill(template.text, {**view, answer: "[MASK]"})
            yield template, capitalised(sentence), normalise(view[answer])
