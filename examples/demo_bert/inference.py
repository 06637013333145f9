"""Question answering with the flags of demo/BERT's inference.py.

python inference.py -e squad.qx -p "The Seine flows through Paris." -q "Which river flows through Paris?"
python inference.py -e squad.qx -sq dev-v1.1.json -o predictions.json
python inference.py -e squad.qx -pf passage.txt              # asks for questions until "exit"
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sources import vocabulary

import qontext as qx
from qontext.errors import ArgumentError
from qontext.tasks.answer import Answer

LAST_WORDS = ("exit", "quit", "bye")


class WindowedAnswer(Answer):
    """Question answering over windows of at most `window` tokens."""

    def __init__(self, engine: qx.Engine, window: int | None):
        super().__init__(engine)
        longest = engine.max_length
        if window is not None and (window < 1 or (longest is not None and window > longest)):
            raise ArgumentError(f"-s {window}: the engine takes 1 to {longest} tokens a sequence")
        self.window = window

    @property
    def limit(self) -> int | None:
        """Longest sequence that is run."""
        return super().limit if self.window is None else self.window


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line of demo/BERT's inference.py."""
    parser = argparse.ArgumentParser(
        description="BERT question answering", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("-e", "--engine", required=True, help="engine file of a question answering model")
    add("-b", "--batch-size", type=int, default=1, help="1: windows of a text are batched by tokens, not by a number")
    passage = parser.add_mutually_exclusive_group()
    passage.add_argument("-p", "--passage", nargs="*", help="the text that holds the answer")
    passage.add_argument("-pf", "--passage-file", help="file with that text")
    question = parser.add_mutually_exclusive_group()
    question.add_argument("-q", "--question", nargs="*", help="the question; none asks for questions")
    question.add_argument("-qf", "--question-file", help="file with the question")
    add("-sq", "--squad-json", help="SQuAD file; answers all of its questions")
    add("-o", "--output-prediction-file", default="predictions.json", help="answers to the questions of -sq, by id")
    add("-v", "--vocab-file", help="vocab.txt to use instead of the tokenizer in the engine")
    add("-s", "--sequence-length", type=int, help="tokens a window; the engine's longest when left out")
    add("--max-query-length", type=int, default=64, help="tokens of the question that are kept")
    add("--max-answer-length", type=int, default=30, help="longest answer in tokens")
    add("--n-best-size", type=int, default=20, help="candidates kept")
    add("--doc-stride", type=int, default=128, help="tokens between the beginnings of windows of a long text")
    return parser.parse_args(argv)


def ask(answer: Answer, question: str, passage: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The candidates for one question, best first."""
    return answer(
        question,
        passage,
        stride=options.doc_stride,
        n_best=options.n_best_size,
        max_answer_tokens=options.max_answer_length,
        max_question_tokens=options.max_query_length,
    )


def show(answer: Answer, question: str, passage: str, options: argparse.Namespace) -> None:
    """Asks one question and prints the best answer with its probability and the time it took."""
    start = time.perf_counter()
    found = ask(answer, question, passage, options)
    milliseconds = (time.perf_counter() - start) * 1e3
    print(f"Question: {question}")
    if not found:
        print("Answer: none found")
        return
    best = found[0]
    print(f"Answer: {best['text']!r} with probability {best['score'] * 100:.2f} %, in {milliseconds:.1f} ms")


def squad_questions(path: str) -> Iterator[tuple[str, str, str]]:
    """(id, question, passage) of a SQuAD file. Raises ArgumentError for a file of another kind."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))["data"]
        entries = [(p["context"], qa) for article in data for p in article["paragraphs"] for qa in p["qas"]]
        yield from [(str(qa["id"]), str(qa["question"]), str(context)) for context, qa in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"-sq {path}: no SQuAD file: {error!r}") from error


def predict(answer: Answer, options: argparse.Namespace) -> None:
    """Answers every question of a SQuAD file and writes the best texts by id."""
    predictions = {}
    for number, question, passage in squad_questions(options.squad_json):
        found = ask(answer, question, passage, options)
        predictions[number] = found[0]["text"] if found else ""
    Path(options.output_prediction_file).write_text(json.dumps(predictions, indent=1, ensure_ascii=False), "utf-8")
    print(f"{options.output_prediction_file}: {len(predictions)} answers")


def _text(words: list[str] | None, file: str | None, flag: str) -> str | None:
    if words:
        return " ".join(words)
    if file is None:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{flag} {file}: cannot be read: {error}") from error


def _typed(lines: Iterable[str]) -> Iterator[str]:
    """Questions as they are typed, until one of LAST_WORDS or the end."""
    print(f"Question (to stop, type one of {', '.join(LAST_WORDS)}):")
    for line in lines:
        if line.strip().lower() in LAST_WORDS:
            return
        if line.strip():
            yield line.strip()


def run(options: argparse.Namespace) -> None:
    """Loads the engine and answers what was asked."""
    if options.batch_size != 1:
        raise ArgumentError(f"-b {options.batch_size}: only 1; windows of a text are batched by their tokens anyway")
    engine = qx.load(options.engine)
    if options.vocab_file is not None:
        engine.tokenizer = vocabulary(options.vocab_file)
    answer = WindowedAnswer(engine, options.sequence_length)
    if options.squad_json is not None:
        predict(answer, options)
        return
    passage = _text(options.passage, options.passage_file, "-pf")
    if passage is None:
        raise ArgumentError("no text to look for answers in: give -p, -pf or -sq")
    question = _text(options.question, options.question_file, "-qf")
    print(f"Passage: {passage}")
    for asked in [question] if question is not None else _typed(sys.stdin):
        show(answer, asked, passage, options)


def main(argv: list[str] | None = None) -> int:
    """Parses and runs; an error of qontext becomes one line and exit status 2."""
    options = parse(argv)
    try:
        run(options)
    except qx.errors.QontextError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
