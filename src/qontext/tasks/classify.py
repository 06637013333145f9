"""classify: a label for each text, or for each word of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .numbers import sigmoid, softmax
from .pipeline import Pipeline, as_list


class Classify(Pipeline):
    """Sequence classification."""

    task = "classify"
    outputs = ("logits",)

    def __call__(self, texts: str | Sequence[str], top: int | None = None, truncate: bool = False) -> Any:
        """The best label of each text.

        Args:
            texts: one text or several.
            top: give the `top` best labels of each text as a list instead of the best one.
            truncate: cut texts that are too long instead of refusing them.
        Returns:
            {"label", "score"} for one text (a list of them for several, or with `top`). The scores are a softmax, or
            for models of several labels a text independent probabilities.
        """
        items, single = as_list(texts, self.task)
        results: list[Any] = []
        several = self.engine.config.get("problem_type") == "multi_label_classification"
        for logits in self.run_batches(self.tokens(items, truncate), "logits"):
            if logits.size == 1 or several:
                scores = sigmoid(logits)
            else:
                scores = softmax(logits)
            order = np.argsort(-scores, kind="stable")
            rows = [{"label": label_of(self.engine.config, int(i)), "score": float(scores[i])} for i in order]
            results.append(rows[0] if top is None else rows[:top])
        return results[0] if single else results


class TokenClassify(Pipeline):
    """Token classification: a label for each word."""

    task = "token-classify"
    outputs = ("logits",)

    def __call__(self, texts: str | Sequence[str], truncate: bool = False) -> Any:
        """Labels of the words of each text: a list of {"word", "label", "score", "begin", "end"} (characters).

        A word of several pieces takes the label of its first piece.
        """
        items, single = as_list(texts, self.task)
        encodings = self.tokenizer.encode(items, max_length=self.limit if truncate else None)
        self.check_length(encodings, truncate)
        results = []
        for text, encoding, logits in zip(items, encodings, self.run_batches([encodings], "logits"), strict=True):
            rows: list[dict[str, Any]] = []
            seen: set[int] = set()
            for position, word in enumerate(encoding.words):
                if word is None:
                    continue
                begin, end = encoding.offsets[position]
                if word in seen:
                    rows[-1]["end"] = end
                    rows[-1]["word"] = text[rows[-1]["begin"] : end]
                    continue
                seen.add(word)
                scores = softmax(logits[position])
                label = int(scores.argmax())
                rows.append(
                    {
                        "word": text[begin:end],
                        "label": label_of(self.engine.config, label),
                        "score": float(scores[label]),
                        "begin": begin,
                        "end": end,
                    }
                )
            results.append(rows)
        return results[0] if single else results


def label_of(config: dict[str, Any], index: int) -> str:
    """The name of a label, LABEL_n where the model gives none."""
    labels = config.get("labels") or {}
    return str(
        labels.get(str(index), labels.get(index, f"LABEL_{index}")) if isinstance(labels, dict) else labels[index]
    )
