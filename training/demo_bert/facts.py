"""The table of real facts the demo model learns, read from `data/*.tsv`.

A `-` in a table means "no single answer": a country with several official languages, a transcontinental
country, a seat of government that differs from the capital, a disputed or changing capital or currency.
Such cells are left out rather than simplified. Currencies are those of 2025, named by their last word.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"

View = dict[str, str]
"""Slot name to value: everything one sentence may say about one subject."""


@dataclass(frozen=True)
class Relation:
    """One kind of fact: which subject it is about and which slot answers it."""

    subject: str
    key: str
    answer: str


RELATIONS: dict[str, Relation] = {
    "capital": Relation("country", "country", "capital"),
    "country_of_capital": Relation("country", "capital", "country"),
    "language": Relation("country", "country", "language"),
    "currency": Relation("country", "country", "currency"),
    "continent": Relation("country", "country", "continent"),
    "landmark_city": Relation("landmark", "landmark", "city"),
    "landmark_country": Relation("landmark", "landmark", "country"),
    "river": Relation("city", "city", "river"),
    "city_country": Relation("city", "city", "country"),
}


def read_table(name: str) -> list[View]:
    """Rows of the fact table `data/<name>.tsv` with the empty cells (`-`) left out."""
    with (DATA / f"{name}.tsv").open(encoding="utf-8", newline="") as lines:
        return [
            {slot: value for slot, value in row.items() if value != "-"}
            for row in csv.DictReader(lines, delimiter="\t")
        ]


def normalise(text: str) -> str:
    """Lower case without accents, as the model's tokenizer sees it."""
    bare = unicodedata.normalize("NFD", text.lower())
    return "".join(mark for mark in bare if unicodedata.category(mark) != "Mn")


def is_single_word(value: str) -> bool:
    """Whether `value` is one token for the model, so that fill-mask can answer with it."""
    return re.fullmatch(r"[a-z]+", normalise(value)) is not None


class FactBook:
    """All facts, as views (`dict` from slot to value) grouped by subject.

    `countries`: country, adjective, capital, continent, language, currency, the capital's river.
    `landmarks`: landmark, city, country, continent. `cities`: city, country, continent, river.
    """

    def __init__(self) -> None:
        rivers = {row["city"]: row["river"] for row in read_table("rivers")}
        self.countries = read_table("countries")
        by_name = {row["country"]: row for row in self.countries}
        for row in self.countries:
            if row.get("capital") in rivers:
                row["river"] = rivers[row["capital"]]
        self.landmarks = read_table("landmarks")
        self.by_city: dict[str, list[str]] = {}
        for row in self.landmarks:
            _add(row, "continent", by_name.get(row.get("country", ""), {}))
            if "city" in row:
                self.by_city.setdefault(row["city"], []).append(row["landmark"])
        self.cities = self._cities(rivers, by_name)
        self.subjects = {"country": self.countries, "landmark": self.landmarks, "city": self.cities}

    def _cities(self, rivers: dict[str, str], by_name: dict[str, View]) -> list[View]:
        cities = {row["city"]: dict(row) for row in read_table("cities")}
        for row in self.countries:
            if "capital" in row:
                cities[row["capital"]] = {"city": row["capital"], "country": row["country"]}
        for row in self.landmarks:
            if "city" in row and "country" in row:
                cities.setdefault(row["city"], {"city": row["city"], "country": row["country"]})
        for city, river in rivers.items():
            cities.setdefault(city, {"city": city})["river"] = river
        for row in cities.values():
            _add(row, "continent", by_name.get(row.get("country", ""), {}))
        return list(cities.values())

    def views(self, subject: str, slots: set[str]) -> Iterator[View]:
        """Every view of `subject` that fills all `slots`, one per landmark where a landmark is asked for.

        A country's landmark is one in its capital, so that sentences which name both stay true.
        """
        for row in self.subjects[subject]:
            places = [row]
            if "landmark" in slots and subject != "landmark":
                city = row.get("capital" if subject == "country" else "city", "")
                places = [{**row, "landmark": name} for name in self.by_city.get(city, [])]
            yield from (view for view in places if slots <= view.keys())

    def fact_count(self) -> int:
        """Number of (relation, key, answer) facts in the book."""
        return sum(
            len({view[rel.key] for view in self.views(rel.subject, {rel.key, rel.answer})})
            for rel in RELATIONS.values()
        )

    def words(self) -> set[str]:
        """Every slot value, unsplit."""
        return {value for rows in self.subjects.values() for row in rows for value in row.values()}


def _add(row: View, slot: str, source: View) -> None:
    if slot in source:
        row[slot] = source[slot]
