"""fill-mask: the most likely words for the [MASK] of a text."""

from collections.abc import Sequence
from typing import Any

from ..errors import ArgumentError, InputError, UnsupportedModelError
from .numbers import best, softmax
from .pipeline import Pipeline, as_list


class FillMask(Pipeline):
    """Called with one text or a list; `[mask]` in any case stands for the model's own mask token."""

    task = "fill-mask"
    outputs = ("logits",)

    def __call__(self, texts: str | Sequence[str], top: int = 10, truncate: bool = False) -> Any:
        """Candidates for each text.

        Args:
            texts: one text or several, each with exactly one mask.
            top: how many candidates.
            truncate: cut texts that are too long instead of refusing them.
        Returns:
            For one text a list of {"token", "probability", "text"}, best first; for several a list of such lists.
        Raises:
            InputError: a text without a mask, with several, or too long.
        """
        items, single = as_list(texts, self.task)
        if top < 1:
            raise ArgumentError(f"fill-mask: top is {top}, it must be at least 1")
        mask = self.tokenizer.mask_id
        if mask is None:
            raise UnsupportedModelError(f"fill-mask: the tokenizer of {self.engine.name} has no mask token")
        encodings = self.tokenizer.encode(items, max_length=self.limit if truncate else None, masks=True)
        self.check_length(encodings, truncate)
        places = [[i for i, t in enumerate(e.ids) if t == mask] for e in encodings]
        for number, found in enumerate(places):
            if len(found) != 1:
                raise InputError(
                    f"fill-mask: text {number} has {len(found)} masks, expected one; write [MASK] where the word "
                    f"belongs: {items[number][:80]!r}"
                )
        logits = self.run_batches([encodings], "logits")
        results = []
        for text, found, scores in zip(items, places, logits, strict=True):
            probabilities = softmax(scores[found[0]])
            rows = []
            for token in best(probabilities, top):
                word = self.tokenizer.word(token)
                filled = self.tokenizer.fill(text, word)
                rows.append({"token": word, "probability": float(probabilities[token]), "text": filled})
            results.append(rows)
        return results[0] if single else results
