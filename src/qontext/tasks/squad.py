"""The measures of SQuAD: exact match and F1 of answers, for v1.1 and, with questions that have no answer, v2.0.

The rules are those of the data set's own evaluation: answers are compared in lower case, without punctuation, articles
and extra spaces; F1 is that of the words; of several right answers the best counts.
"""

import json
import os
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, all_problems

_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Question:
    """A question with its context and the texts that count as right; none: it has no answer."""

    id: str
    question: str
    context: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """Percentages over `total` questions; `answered` and `unanswerable` hold those of the two kinds in v2.0."""

    exact: float
    f1: float
    total: int
    answered: "Score | None" = None
    unanswerable: "Score | None" = None


def read_questions(path: str | os.PathLike[str]) -> list[Question]:
    """The questions of a SQuAD file, v1.1 or v2.0. Raises ArgumentError for any other file."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        return [
            Question(
                str(entry["id"]),
                str(entry["question"]),
                str(paragraph["context"]),
                tuple(str(a["text"]) for a in entry.get("answers", []) if not entry.get("is_impossible", False)),
            )
            for article in data["data"]
            for paragraph in article["paragraphs"]
            for entry in paragraph["qas"]
        ]
    except OSError as error:
        raise ArgumentError(f"cannot read {path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArgumentError(f"{path} is no SQuAD file: {type(error).__name__}: {str(error)[:200]}") from error


def normalised(text: str) -> str:
    """A text as answers are compared."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 when both are the same text, else 0."""
    return float(normalised(prediction) == normalised(answer))


def f1(prediction: str, answer: str) -> float:
    """Harmonic mean of precision and recall of words; an empty text only equals an empty one."""
    mine, theirs = normalised(prediction).split(), normalised(answer).split()
    if not mine or not theirs:
        return float(mine == theirs)
    common = sum((Counter(mine) & Counter(theirs)).values())
    if not common:
        return 0.0
    precision, recall = common / len(mine), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


def evaluate(
    questions: Sequence[Question],
    predictions: Mapping[str, str],
    no_answer: Mapping[str, float] | None = None,
    threshold: float = 1.0,
) -> Score:
    """Scores predictions.

    Args:
        predictions: {question id: answer}; "" says that there is none.
        no_answer: {question id: probability that there is none}: over `threshold`, the prediction counts as "".
    Raises:
        ArgumentError: no questions, or predictions that are missing (all of them are named).
    """
    if not questions:
        raise ArgumentError("squad: there are no questions to score")
    missing = [q.id for q in questions if q.id not in predictions]
    if missing:
        raise ArgumentError(all_problems("squad: predictions", [f"question {i!r} has none" for i in missing], limit=10))
    rows = []
    for question in questions:
        given = predictions[question.id]
        if no_answer is not None and no_answer.get(question.id, 0.0) > threshold:
            given = ""
        answers = [a for a in question.answers if normalised(a)] or [""]
        best = max(exact_match(given, a) for a in answers), max(f1(given, a) for a in answers)
        rows.append((bool(question.answers), *best))
    parts = {kind: [row[1:] for row in rows if row[0] is kind] for kind in (True, False)}
    whole = _score(row[1:] for row in rows)
    if not parts[False]:
        return whole
    return Score(whole.exact, whole.f1, whole.total, *(_score(parts[k]) if parts[k] else None for k in (True, False)))


def _score(rows: Iterable[tuple[Any, ...]]) -> Score:
    found = list(rows)
    return Score(
        100.0 * sum(row[0] for row in found) / len(found), 100.0 * sum(row[1] for row in found) / len(found), len(found)
    )


def best_threshold(
    questions: Sequence[Question], predictions: Mapping[str, str], no_answer: Mapping[str, float]
) -> tuple[float, float]:
    """(F1, threshold): the probability of no answer from which "no answer" should be said, for the best F1."""
    thresholds = sorted({0.0, *no_answer.values()})
    tried = [(evaluate(questions, predictions, no_answer, t).f1, t) for t in thresholds]
    return max(tried, key=lambda pair: (pair[0], -pair[1]))
