"""answer: the span of a text that answers a question, over windows of any long text.

Windows, n-best selection and the mapping back to characters follow the usual SQuAD post-processing.
"""

from typing import Any

from ..errors import ArgumentError, InputError
from ..packing.batches import windows
from .numbers import best, softmax
from .pipeline import Pipeline
from .tokenizer import Encoding

import numpy as np  # isort: skip


class Answer(Pipeline):
    """Called with a question and a text."""

    task = "answer"
    outputs = ("start_logits",)

    def __call__(
        self,
        question: str,
        context: str,
        stride: int = 128,
        n_best: int = 20,
        max_answer_tokens: int = 30,
        max_question_tokens: int = 64,
    ) -> list[dict[str, Any]]:
        """Answers, best first.

        Args:
            question: any text; cut to `max_question_tokens`.
            context: the text that holds the answer, of any length.
            stride: tokens between the beginnings of neighbouring windows.
            n_best: begin and end candidates of each window, and answers returned.
            max_answer_tokens: longest answer.
        Returns:
            Up to `n_best` of {"text", "score", "begin", "end"}: characters of `context`; scores are a softmax over
            the candidates.
        Raises:
            InputError: an empty context or question.
            ArgumentError: a stride or count that makes no sense.
        """
        if not isinstance(question, str) or not isinstance(context, str):
            raise ArgumentError("answer: question and context must be strings")
        if not context.strip() or not question.strip():
            raise InputError("answer: the question and the text must not be empty")
        if min(stride, n_best, max_answer_tokens, max_question_tokens) < 1:
            raise ArgumentError("answer: stride, n_best, max_answer_tokens and max_question_tokens must be at least 1")
        encodings = self._windows(question, context, stride, max_question_tokens)
        spans: dict[tuple[int, int], float] = {}
        outputs = self.run_outputs([encodings], ("start_logits", "end_logits"))
        for encoding, found in zip(encodings, outputs, strict=True):
            self._collect(encoding, found["start_logits"], found["end_logits"], n_best, max_answer_tokens, spans)
        if not spans:
            return []
        ranked = sorted(spans.items(), key=lambda item: -item[1])[:n_best]
        scores = softmax(np.array([score for _, score in ranked]))
        return [
            {"text": context[begin:end], "score": float(p), "begin": begin, "end": end}
            for ((begin, end), _), p in zip(ranked, scores, strict=True)
        ]

    def _windows(self, question: str, context: str, stride: int, longest: int) -> list[Encoding]:
        asked = self.tokenizer.encode_plain(question).cut(0, longest)
        body = self.tokenizer.encode_plain(context)
        room = (self.limit or 512) - len(asked.ids) - self.tokenizer.pair_overhead
        if room < 1:
            raise InputError(f"answer: the question fills the window of {self.limit} tokens; shorten it")
        spans = windows(len(body.ids), room, min(stride, room))
        return [self.tokenizer.join(asked, body.cut(begin, end)) for begin, end in spans]

    @staticmethod
    def _collect(
        encoding: Encoding,
        starts: np.ndarray,
        ends: np.ndarray,
        n_best: int,
        longest: int,
        spans: dict[tuple[int, int], float],
    ) -> None:
        inside = np.array([part == 1 for part in encoding.parts])
        hidden = np.where(inside, 0.0, -np.inf)
        for first in best(starts + hidden, n_best):
            for last in best(ends + hidden, n_best):
                if not inside[first] or not inside[last] or last < first or last - first >= longest:
                    continue
                key = (encoding.offsets[first][0], encoding.offsets[last][1])
                score = float(starts[first]) + float(ends[last])
                spans[key] = max(score, spans.get(key, -np.inf))
