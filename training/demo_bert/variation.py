"""Varies a wording before its slots are filled, so that few sentences share one surface.

Two variations, each seldom: a slot gets its noun (`{city}` becomes "the city of {city}", from
`data/phrases.tsv`), or an aside follows a slot ("{city}, of course, is ...").
"""

from __future__ import annotations

import random
import re

from templates import SLOT, read_rows

# Share of sentences that get a noun, and that get an aside.
NOUNS, ASIDES = 0.25, 0.06


class Variation:
    """The table of nouns and the list of asides."""

    def __init__(self, asides: list[str]) -> None:
        self.asides = asides
        self.phrases = [(row["noun"], row["plain"], row["phrase"]) for row in read_rows("phrases")]

    def apply(self, wording: str, draw: random.Random) -> str:
        """A wording with at most one noun and one aside more."""
        if draw.random() < NOUNS:
            wording = self._with_noun(wording, draw)
        if draw.random() < ASIDES:
            wording = self._with_aside(wording, draw)
        return wording

    def _with_noun(self, wording: str, draw: random.Random) -> str:
        words = set(re.findall(r"[a-z]+", SLOT.sub(" ", wording.lower())))
        fitting = [row for row in self.phrases if row[1] in wording and row[0] not in words]
        if not fitting:
            return wording
        _, plain, phrase = draw.choice(fitting)
        return wording.replace(plain, phrase, 1)

    def _with_aside(self, wording: str, draw: random.Random) -> str:
        places = [match.end() for match in re.finditer(r"\}(?= )", wording)]
        if not places:
            return wording
        at = draw.choice(places)
        return f"{wording[:at]}, {draw.choice(self.asides)},{wording[at:]}"

    def vocabulary(self) -> set[str]:
        """Every wording a variation may bring in."""
        return {*self.asides, *(phrase for _, _, phrase in self.phrases)}
