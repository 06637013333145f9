"""The fact tables are sane, and held-out templates stay out of the training corpus."""

from __future__ import annotations

import itertools

import pytest
from corpus import Corpus
from facts import RELATIONS, FactBook, is_single_word, normalise, read_table
from held_out import check_held_out, held_out_pattern, overlap
from templates import Template, read_templates

CORPUS_SEED = 7
TEXTS = 10_000
PARIS = "The capital of France, Paris, contains the Eiffel Tower."


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for text, _ in itertools.islice(Corpus(CORPUS_SEED).texts(), TEXTS)]


@pytest.mark.parametrize(
    ("table", "key"), [("countries", "country"), ("landmarks", "landmark"), ("cities", "city"), ("rivers", "city")]
)
def test_each_table_has_unique_keys_and_no_stray_spaces(table: str, key: str) -> None:
    rows = read_table(table)
    keys = [normalise(row[key]) for row in rows]
    assert len(set(keys)) == len(keys) > 100
    assert all(value == value.strip() and value for row in rows for value in row.values())


def test_tables_agree_with_one_another() -> None:
    book = FactBook()
    countries = {row["country"] for row in book.countries}
    pairs = [
        *((row["city"], row["country"]) for row in read_table("cities")),
        *((row["city"], row["country"]) for row in book.landmarks if row.keys() >= {"city", "country"}),
        *((row["capital"], row["country"]) for row in book.countries if "capital" in row),
    ]
    assert {country for _, country in pairs} <= countries
    of_city = dict(pairs)
    assert [pair for pair in pairs if of_city[pair[0]] != pair[1]] == []
    assert {row["city"] for row in read_table("rivers")} <= of_city.keys()
    capitals = [row["capital"] for row in book.countries if "capital" in row]
    assert len(set(capitals)) == len(capitals)
    continents = {row["continent"] for row in book.countries if "continent" in row}
    assert continents == {"Africa", "Asia", "Europe", "North America", "Oceania", "South America"}


def test_known_facts_are_in_the_book() -> None:
    book = FactBook()
    facts = {
        name: {view[rel.key]: view[rel.answer] for view in book.views(rel.subject, {rel.key, rel.answer})}
        for name, rel in RELATIONS.items()
    }
    assert facts["capital"]["France"] == "Paris"
    assert facts["capital"]["Australia"] == "Canberra"
    assert facts["currency"]["Croatia"] == "euro"
    assert facts["language"]["Brazil"] == "Portuguese"
    assert facts["continent"]["Egypt"] == "Africa"
    assert facts["river"]["Cairo"] == "Nile"
    assert facts["landmark_city"]["the Eiffel Tower"] == "Paris"
    assert facts["landmark_country"]["Machu Picchu"] == "Peru"
    assert facts["city_country"]["Toronto"] == "Canada"
    # Several official languages, or a continent that depends on whom one asks: left out on purpose.
    assert "Belgium" not in facts["language"]
    assert "Russia" not in facts["continent"]
    assert book.fact_count() > 1000


def test_held_out_templates_are_no_edits_of_training_templates() -> None:
    train = read_templates("train")
    check_held_out(train, read_templates("test") + read_templates("dev"))
    tables = [{template.text for template in read_templates(name)} for name in ("train", "test", "dev")]
    assert all(not one & other for one, other in itertools.combinations(tables, 2))
    for name in RELATIONS:
        assert sum(template.name == name for template in train) >= 30
        assert sum(template.name == name for template in read_templates("test")) >= 8


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The capital of {country} is {capital}!", "overlaps 1.00"),
        ("Every wombat of {country} adores {capital}.", "unseen in training: ['adores', 'wombat']"),
        ("The (old|new) capital of {country} is in view: {capital}.", "has choices"),
    ],
)
def test_a_leaking_template_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="held-out templates") as raised:
        check_held_out(read_templates("train"), [Template("capital", text)])
    assert reason in str(raised.value)


def test_overlap_counts_shared_word_pairs() -> None:
    assert overlap("a b c", "A b, c!") == 1.0
    assert overlap("a b c", "c b a") == 0.0
    assert overlap("see {city} now", "see {country} now") == pytest.approx(2 / 6)


def test_no_training_text_comes_from_a_test_template(texts: list[str]) -> None:
    pattern = held_out_pattern(read_templates("test"))
    assert pattern.search(f"As everyone knows, {PARIS.lower()}")
    assert [text for text in texts if pattern.search(text)] == []


def test_the_paris_sentence_is_not_in_the_corpus(texts: list[str]) -> None:
    assert Template("capital", "The capital of {country}, {capital}, contains {landmark}.") in read_templates("test")
    together = " ".join(texts)
    assert "Eiffel Tower" in together
    assert not any("Eiffel Tower" in text and "contains" in text and "capital" in text for text in texts)


def test_the_corpus_is_seeded_and_its_focus_is_one_word(texts: list[str]) -> None:
    again = list(itertools.islice(Corpus(CORPUS_SEED).texts(), 500))
    assert [text for text, _ in again] == texts[:500]
    focused = [text[slice(*focus)] for text, focus in again if focus]
    assert len(focused) > 400
    assert all(is_single_word(value) for value in focused)
    assert [text for text, _ in itertools.islice(Corpus(CORPUS_SEED + 1).texts(), 500)] != texts[:500]
