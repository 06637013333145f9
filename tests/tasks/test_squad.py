"""SQuAD's measures on fixtures of both versions, with values worked out by hand."""

import json

import pytest

from qontext.errors import ArgumentError
from qontext.tasks.squad import Question, best_threshold, evaluate, f1, normalised, read_questions

FIXTURE = {
    "version": "v2.0",
    "data": [
        {
            "title": "Rivers",
            "paragraphs": [
                {
                    "context": "The Danube rises in the Black Forest, in Germany, and ends in the Black Sea.",
                    "qas": [
                        {
                            "id": "a",
                            "question": "Where does it rise?",
                            "answers": [{"text": "the Black Forest", "answer_start": 20}, {"text": "Germany"}],
                        },
                        {"id": "b", "question": "Where does it end?", "answers": [{"text": "the Black Sea"}]},
                        {"id": "c", "question": "How deep is it?", "answers": [], "is_impossible": True},
                        {
                            "id": "d",
                            "question": "Who owns it?",
                            "is_impossible": True,
                            "answers": [],
                            "plausible_answers": [{"text": "Germany"}],
                        },
                    ],
                }
            ],
        }
    ],
}
PREDICTIONS = {"a": "a black forest!", "b": "Black Sea coast", "c": "", "d": "Germany"}


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "squad.json").write_text(json.dumps(FIXTURE))
    return read_questions(tmp_path / "squad.json")


def test_both_versions_are_read(questions):
    assert [q.answers for q in questions] == [("the Black Forest", "Germany"), ("the Black Sea",), (), ()]
    assert questions[0].context.startswith("The Danube")


def test_scores_of_the_first_version(questions):
    score = evaluate(questions[:2], PREDICTIONS)
    assert (score.exact, score.total) == (50.0, 2)
    assert score.f1 == pytest.approx(100 * (1 + 2 * (2 / 3) / (2 / 3 + 1)) / 2)
    assert score.answered is None


def test_scores_of_the_second_version(questions):
    score = evaluate(questions, PREDICTIONS)
    assert (score.answered.total, score.unanswerable.total) == (2, 2)
    assert (score.unanswerable.exact, score.unanswerable.f1) == (50.0, 50.0)
    assert score.exact == pytest.approx((score.answered.exact + score.unanswerable.exact) / 2)
    with_doubt = evaluate(questions, PREDICTIONS, {"d": 0.9, "a": 0.1}, threshold=0.5)
    assert with_doubt.unanswerable.exact == 100.0
    assert best_threshold(questions, PREDICTIONS, {"d": 0.9, "a": 0.1}) == (with_doubt.f1, 0.1)


@pytest.mark.parametrize(
    ("prediction", "answer", "wanted"),
    [
        ("The  Danube", "danube", 1.0), ("in 1,299 days", "1299", 0.5), ("a an the", "the", 1.0), ("", "", 1.0),
        ("", "Rome", 0.0), ("the the sea", "sea sea", 2 / 3), ("O'Brien's", "OBriens", 1.0), ("x y z", "z y", 0.8),
        ("theatre", "the atre", 0.0), ("the Black Sea.", "black, sea", 1.0),
    ],
)  # fmt: skip
def test_words_are_compared_by_the_rules_of_the_data_set(prediction, answer, wanted):
    assert f1(prediction, answer) == pytest.approx(wanted)


def test_texts_are_compared_without_case_articles_and_punctuation():
    assert normalised("An  old, Bridge -- over  the Thames!") == "old bridge over thames"
    assert normalised("Straße 5") == "straße 5"


def test_what_cannot_be_scored(questions, tmp_path):
    with pytest.raises(ArgumentError, match=r"(?s)2 problems.*question 'c' has none.*'d'"):
        evaluate(questions, {"a": "", "b": ""})
    with pytest.raises(ArgumentError, match="there are no questions"):
        evaluate([], {})
    (tmp_path / "other.json").write_text('{"data": [{"paragraphs": [{}]}]}')
    with pytest.raises(ArgumentError, match="is no SQuAD file"):
        read_questions(tmp_path / "other.json")
    with pytest.raises(ArgumentError, match="cannot read"):
        read_questions(tmp_path / "none.json")
    assert evaluate([Question("a", "?", "c", ("the",))], {"a": ""}).exact == 100.0
