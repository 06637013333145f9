"""Batches of samples from a file: a text file of one text a line, or an .npz file of arrays."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import CalibrationError, TokenizerError
from ..graph.model import Model
from .tokenizer import Tokenizer

Batch = Mapping[str, Any]


def read_samples(
    path: str | os.PathLike[str], model: Model, batch: int = 8, max_length: int | None = None
) -> Iterator[Batch]:
    """Batches of at most `batch` sequences, padded to the longest among them.

    Args:
        path: `.npz` with one array an input, the first axis being sequences; anything else is text.
        max_length: tokens a text is cut to; the model's own limit when left out.
    Raises:
        CalibrationError: a file that cannot be read or holds nothing. TokenizerError: text for a model without one.
    """
    if Path(path).suffix == ".npz":
        yield from _arrays(path, batch)
        return
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"cannot read the samples {path}: {error}") from error
    if not lines:
        raise CalibrationError(f"the samples {path} hold no text; give one text a line")
    yield from text_batches(lines, model, batch, max_length)


def text_batches(texts: Sequence[str], model: Model, batch: int = 8, max_length: int | None = None) -> Iterator[Batch]:
    """Batches of token ids and masks of texts, in their order."""
    if model.tokenizer is None:
        raise TokenizerError(f"{model.name} has no tokenizer; give samples as an .npz file of its inputs")
    tokenizer = Tokenizer(model.tokenizer, model.config)
    limit = max_length or model.config.get("max_length")
    for first in range(0, len(texts), batch):
        found = [torch.tensor(e.ids) for e in tokenizer.encode(texts[first : first + batch], limit)]
        ids = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(f) for f in found])[:, None]
        yield {"input_ids": ids, "attention_mask": mask.long()}


def _arrays(path: str | os.PathLike[str], batch: int) -> Iterator[Batch]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise CalibrationError(f"cannot read the samples {path}: {error}; it must be an .npz of arrays") from error
    counts = {name: len(a) for name, a in arrays.items() if a.ndim}
    if len(counts) != len(arrays) or len(set(counts.values())) != 1:
        shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in arrays.items())
        raise CalibrationError(f"the arrays of {path} must have the sequences as their first axis: {shapes or 'none'}")
    for first in range(0, next(iter(counts.values())), batch):
        yield {name: array[first : first + batch] for name, array in arrays.items()}
