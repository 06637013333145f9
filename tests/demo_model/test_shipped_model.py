"""The shipped folder is complete and small, and answers as its card says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from card import card_text
from corpus import Corpus
from evaluate import PARIS, evaluate
from facts import RELATIONS, FactBook, is_single_word, normalise
from safetensors import safe_open
from tokenizers import Tokenizer
from vocabulary import SPECIAL, build_vocabulary

if TYPE_CHECKING:
    from evaluate import FillMask

MAX_BYTES = 12_000_000
FILES = {
    "README.md",
    "config.json",
    "evaluation.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "training.json",
    "vocab.txt",
}


def test_folder_is_complete_and_small(folder: Path) -> None:
    files = [path for path in folder.iterdir() if path.is_file()]
    assert {path.name for path in files} == FILES
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES


def test_config_and_weights_are_a_hugging_face_bert(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "bert"
    assert config["architectures"] == ["BertForMaskedLM"]
    assert config["hidden_act"] == "gelu"
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
        words = weights.get_slice("bert.embeddings.word_embeddings.weight")
        assert words.get_shape() == [config["vocab_size"], config["hidden_size"]]
        assert words.get_dtype() == "F32"
    layers = {int(name.split(".")[3]) for name in names if name.startswith("bert.encoder.layer.")}
    assert layers == set(range(config["num_hidden_layers"]))
    assert {"cls.predictions.bias", "cls.predictions.transform.dense.weight"} <= names


def test_vocabulary_is_the_one_the_scripts_build(folder: Path) -> None:
    tokens = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert tokens == build_vocabulary(Corpus(0).vocabulary())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert [tokenizer.id_to_token(at) for at in range(tokenizer.get_vocab_size())] == tokens
    assert tokens[: len(SPECIAL)] == SPECIAL


def test_tokenizer_lower_cases_strips_accents_and_spells_new_words(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("BOGOTÁ, [MASK]!").tokens == ["[CLS]", "bogota", ",", "[MASK]", "!", "[SEP]"]
    unknown = tokenizer.encode("xylophone").tokens
    assert len(unknown) > 3
    assert "[UNK]" not in unknown
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["mask_token"] == "[MASK]"
    assert config["do_lower_case"] is True


def test_every_answer_is_one_token(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    book = FactBook()
    answers = {
        normalise(view[relation.answer])
        for relation in RELATIONS.values()
        for view in book.views(relation.subject, {relation.key, relation.answer})
        if is_single_word(view[relation.answer])
    }
    assert len(answers) > 500
    assert [answer for answer in answers if tokenizer.encode(answer).tokens != ["[CLS]", answer, "[SEP]"]] == []


def test_held_out_scores_are_those_of_the_card(folder: Path, fill_mask: FillMask) -> None:
    recorded = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["test"]
    measured = evaluate(fill_mask, "test")
    assert measured["overall"]["questions"] == recorded["overall"]["questions"] > 4000
    # Another processor may round a close call the other way: a few questions of thousands.
    assert measured["overall"]["top1"] == pytest.approx(recorded["overall"]["top1"], abs=0.002)
    for name in RELATIONS:
        assert measured["relations"][name]["top1"] == pytest.approx(recorded["relations"][name]["top1"], abs=0.01)
    assert measured["overall"]["top1"] >= 0.90
    assert min(measured["relations"][name]["top1"] for name in RELATIONS) >= 0.75


def test_card_is_written_from_the_records(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == card_text(folder)
    assert all(f"| {name} |" in card for name in RELATIONS)


def test_paris_comes_first_and_cities_follow(fill_mask: FillMask) -> None:
    candidates = fill_mask.candidates(PARIS, 10)
    tokens = list(candidates)
    assert tokens[0] == "paris"
    assert candidates["paris"] > 0.9
    cities = {normalise(city["city"]) for city in FactBook().cities}
    assert sum(token in cities for token in tokens) >= 6


@pytest.mark.parametrize(
    ("sentence", "answer"),
    [
        ("Berlin is the capital of [MASK].", "germany"),
        ("People in Brazil speak [MASK].", "portuguese"),
        ("The [MASK] flows through Cairo.", "nile"),
        ("the capital of germany, [MASK], lies on the spree", "berlin"),
        ("In Japan you pay with the [MASK].", "yen"),
    ],
)
def test_plain_questions_are_answered(fill_mask: FillMask, sentence: str, answer: str) -> None:
    assert next(iter(fill_mask.candidates(sentence, 1))) == answer
