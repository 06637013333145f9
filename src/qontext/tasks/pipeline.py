"""`pipeline(task, model)`: texts in, answers out.

All pipelines tokenise, batch by token budget (sorted by length, results in the caller's order) and run one engine.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..engine import Engine, build, load
from ..errors import ArgumentError, InputError, TokenizerError, UnsupportedModelError
from ..graph.model import Model
from ..importers import import_model
from ..packing.batches import in_order, plan_batches
from .tokenizer import Encoding, Tokenizer

BATCH_TOKENS = 4096
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

    def check_length(self, encodings: Sequence[Encoding], truncated: bool) -> None:
        """Raises InputError naming the texts that are too long (nothing is cut in silence)."""
        if self.limit is None or truncated:
            return
        long = [(i, len(e.ids)) for i, e in enumerate(encodings) if len(e.ids) > self.limit]
        if long:
            raise InputError(
                f"{self.task}: text {long[0][0]} has {long[0][1]} tokens, the model takes at most {self.limit}"
                f"{f' ({len(long)} such texts)' if len(long) > 1 else ''}; shorten it, or pass truncate=True to cut it"
            )

    def run_batches(
        self, encodings: Sequence[Encoding], name: str, progress: Progress | None = None
    ) -> list[np.ndarray]:
        """One array of output `name` for each encoding, cut to its own length where the output has a length axis."""
        results = self.run_outputs(encodings, (name,), progress)
        return [r[name] for r in results]

    def run_outputs(
        self, encodings: Sequence[Encoding], names: Sequence[str], progress: Progress | None = None
    ) -> list[dict[str, np.ndarray]]:
        """Several outputs for each encoding."""
        budget = min(BATCH_TOKENS, self.engine.settings.max_tokens)
        lengths = [len(e.ids) for e in encodings]
        budget = max(budget, max(lengths, default=1))
        batches = plan_batches(lengths, budget)
        found = []
        for batch in batches:
            outputs = self.engine.run(self._inputs([encodings[i] for i in batch.indices]))
            longest = max(batch.lengths)
            rows = []
            for row, length in enumerate(batch.lengths):
                picked = {n: outputs[n][row] for n in names}
                per_token = {
                    n: a.ndim >= 1 and outputs[n].ndim >= 2 and outputs[n].shape[1] == longest
                    for n, a in picked.items()
                }
                rows.append(
                    {
                        n: a[:length] if per_token[n] and n in _PER_TOKEN.get(self.task, ()) else a
                        for n, a in picked.items()
                    }
                )
            found.append(rows)
            if progress is not None:
                progress(len(rows))
        return in_order(batches, found, len(encodings))

    def _inputs(self, encodings: Sequence[Encoding]) -> dict[str, np.ndarray]:
        longest = max(len(e.ids) for e in encodings)
        shape = (len(encodings), longest)
        names = set(self.engine.input_names)
        ids = np.full(shape, self.tokenizer.pad_id, np.int64)
        mask = np.zeros(shape, np.int64)
        types = np.zeros(shape, np.int64)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            types[row, : len(encoding.ids)] = encoding.type_ids
            mask[row, : len(encoding.ids)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: array for name, array in given.items() if name in names}


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
