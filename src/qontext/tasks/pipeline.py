"""`pipeline(task, model)`: texts in, answers out.

All pipelines tokenise, batch by token budget (sorted by length, results in the caller's order) and run one engine.
Many texts are tokenised while the batches before them run.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..engine import Engine, build, load
from ..errors import ArgumentError, InputError, TokenizerError, UnsupportedModelError
from ..graph.model import Model
from ..importers import import_model
from ..packing.batches import Batch, plan_batches
from .stream import ahead, in_flight
from .tokenizer import Tokenizer, Tokens

BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}  # of a batch, counted padded: enough to keep the device busy
PIECE = 4096  # texts that are tokenised together
Progress = Callable[[int], None]


class Pipeline:
    """Common to all tasks: an engine, its tokenizer, and batched runs.

    Attributes:
        task: the name that `pipeline` takes.
        outputs: names of engine outputs of which the task needs at least one.
    """

    task = ""
    outputs: tuple[str, ...] = ()

    def __init__(self, engine: Engine):
        if engine.tokenizer is None:
            raise TokenizerError(
                f"{self.task} needs a tokenizer, and {engine.name} has none; put tokenizer.json beside config.json "
                "and import the model again"
            )
        missing = not set(self.outputs) & set(engine.output_names)
        if self.outputs and missing:
            raise UnsupportedModelError(
                f"{self.task} needs one of the outputs {', '.join(self.outputs)}; {engine.name} (task "
                f"{engine.task or 'unknown'}) has {', '.join(engine.output_names)}. Use a model that was trained for "
                f"{self.task}"
            )
        self.engine = engine
        self.tokenizer = Tokenizer(engine.tokenizer, engine.config)

    @property
    def limit(self) -> int | None:
        """Longest sequence that the engine takes."""
        return self.engine.max_length

    def check_length(self, encodings: Sequence[Tokens], truncated: bool) -> None:
        """Raises InputError naming the texts that are too long (nothing is cut in silence)."""
        if self.limit is None or truncated:
            return
        long = [(i, len(e.ids)) for i, e in enumerate(encodings) if len(e.ids) > self.limit]
        if long:
            raise InputError(
                f"{self.task}: text {long[0][0]} has {long[0][1]} tokens, the model takes at most {self.limit}"
                f"{f' ({len(long)} such texts)' if len(long) > 1 else ''}; shorten it, or pass truncate=True to cut it"
            )

    def tokens(self, texts: Sequence[str], truncate: bool) -> Iterator[list[Tokens]]:
        """The texts tokenised, in pieces: each while the piece before it is run.

        Raises InputError naming the texts that are too long, before any is run, unless they are cut.
        """
        if not truncate:
            whole = self.tokenizer.tokens(texts)
            self.check_length(whole, truncate)
            return iter([whole])
        pieces = [texts[start : start + PIECE] for start in range(0, len(texts), PIECE)]
        # Reading what was found holds Python's lock, for which the thread that feeds the engine would have to wait.
        found = ahead(pieces, self.tokenizer.search)
        return (self.tokenizer.read(piece, one, self.limit) for piece, one in zip(pieces, found, strict=True))

    def run_batches(
        self, pieces: Iterable[Sequence[Tokens]], name: str, progress: Progress | None = None
    ) -> list[np.ndarray]:
        """One array of output `name` for each text, cut to its own length where the output has a length axis."""
        return [r[name] for r in self.run_outputs(pieces, (name,), progress)]

    def run_rows(
        self, pieces: Iterable[Sequence[Tokens]], name: str, count: int, progress: Progress | None = None
    ) -> np.ndarray:
        """Output `name`, one row for each of `count` texts, `[count, ...]`."""
        rows: np.ndarray | None = None
        for (indices, _), outputs in in_flight(self.engine, self._batches(pieces), (name,)):
            batch = outputs[name]
            if rows is None:
                rows = np.empty((count, *batch.shape[1:]), batch.dtype)
            rows[indices] = batch
            if progress is not None:
                progress(len(indices))
        assert rows is not None, "no texts"
        return rows

    def run_outputs(
        self, pieces: Iterable[Sequence[Tokens]], names: Sequence[str], progress: Progress | None = None
    ) -> list[dict[str, np.ndarray]]:
        """Several outputs for each text of the pieces, in their order."""
        found: dict[int, dict[str, np.ndarray]] = {}
        for (indices, batch), outputs in in_flight(self.engine, self._batches(pieces), names):
            longest = max(batch.lengths)
            for row, (index, length) in enumerate(zip(indices, batch.lengths, strict=True)):
                found[index] = {n: self._of_text(n, outputs[n], row, length, longest) for n in names}
            if progress is not None:
                progress(len(indices))
        return [found[i] for i in range(len(found))]

    def _batches(
        self, pieces: Iterable[Sequence[Tokens]]
    ) -> Iterator[tuple[tuple[list[int], Batch], dict[str, np.ndarray]]]:
        """Each batch with the numbers of its texts among all, and the inputs of its run."""
        before = 0
        for piece in pieces:
            lengths = [len(t.ids) for t in piece]
            wanted = BATCH_TOKENS["cpu" if self.engine.device == "cpu" else "cuda"]
            budget = max(min(wanted, self.engine.settings.max_tokens), max(lengths, default=1))
            for batch in plan_batches(lengths, budget):
                numbers = [before + i for i in batch.indices]
                yield (numbers, batch), self._inputs([piece[i] for i in batch.indices])
            before += len(piece)

    def _of_text(self, name: str, output: np.ndarray, row: int, length: int, longest: int) -> np.ndarray:
        """The part of a batch's output that belongs to one text of it."""
        per_token = name in _PER_TOKEN.get(self.task, ()) and output.ndim >= 2 and output.shape[1] == longest
        return output[row, :length] if per_token else output[row]

    def _inputs(self, texts: Sequence[Tokens]) -> dict[str, np.ndarray]:
        """Padded ids, mask and types `[B, S]`, int64, as far as the engine takes them."""
        lengths = np.array([len(t.ids) for t in texts])
        real = np.arange(lengths.max()) < lengths[:, None]
        names = set(self.engine.input_names)
        given = {}
        if "input_ids" in names:
            given["input_ids"] = np.full(real.shape, self.tokenizer.pad_id, np.int64)
            given["input_ids"][real] = _flat(t.ids for t in texts)
        if "attention_mask" in names:
            given["attention_mask"] = real.astype(np.int64)
        if "token_type_ids" in names:
            given["token_type_ids"] = np.zeros(real.shape, np.int64)
            if any(t.type_ids for t in texts):
                given["token_type_ids"][real] = _flat(t.type_ids or (0,) * len(t.ids) for t in texts)
        return given


def _flat(rows: Iterable[Sequence[int]]) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), np.int64)


_PER_TOKEN = {
    "fill-mask": ("logits",),
    "token-classify": ("logits",),
    "answer": ("start_logits", "end_logits"),
    "embed": ("last_hidden_state",),
}


def as_list(texts: str | Sequence[str], what: str) -> tuple[list[str], bool]:
    """The texts as a list, and whether it was a single one. Raises ArgumentError for anything but strings."""
    single = isinstance(texts, str)
    items = [texts] if isinstance(texts, str) else list(texts)
    wrong = [i for i, t in enumerate(items) if not isinstance(t, str)]
    if wrong:
        raise ArgumentError(f"{what}: text {wrong[0]} is a {type(items[wrong[0]]).__name__}, expected str")
    return items, single


def pipeline(
    task: str,
    model: Engine | Model | str | os.PathLike[str],
    precision: str = "fp32",
    device: str = "cpu",
    **options: Any,
) -> Pipeline:
    """The pipeline of a task.

    Args:
        task: "fill-mask", "embed", "classify", "token-classify" or "answer".
        model: a Hugging Face folder or hub id, an .onnx file, a .qx file, a Model, an Engine, or "demo-bert".
        precision, device, options: passed to `build` (an Engine or .qx file is taken as it is).
    Raises:
        ArgumentError: an unknown task.
        UnsupportedModelError, TokenizerError: a model that cannot do it.
    """
    from .catalogue import PIPELINES

    if task not in PIPELINES:
        raise ArgumentError(f"pipeline: unknown task {task!r}; allowed: {', '.join(PIPELINES)}")
    if isinstance(model, Engine):
        engine = model
    elif not isinstance(model, Model) and str(model).endswith(".qx"):
        engine = load(model)
    else:
        imported = model if isinstance(model, Model) else import_model(model, task=task)
        engine = build(imported, precision, device, **{"tune": False, **options})
    if task == "classify" and engine.task == "token-classify":
        task = "token-classify"
    return PIPELINES[task](engine)
