"""The model that the homework works on: a Hugging Face folder, by default the demo model of the package.

With `model = "path/to/bert-base-uncased"` (config.json, model.safetensors, tokenizer.json or vocab.txt) everything
runs on the model of the homework.
"""

import logging
import sys
from pathlib import Path

import numpy as np

import qontext as qx
from qontext.importers.huggingface.door import find_folder
from qontext.importers.huggingface.files import read_tokenizer
from qontext.importers.huggingface.wordpiece import tokenizer_from_vocabulary
from qontext.tasks.numbers import best, softmax
from qontext.tasks.tokenizer import Encoding, Tokenizer

BERT_PATH = "demo-bert"
TEXT = "The capital of France, [MASK], contains the Eiffel Tower."
TOP = 10


def folder_of(model: str) -> Path:
    """The folder of a model: a path, or "demo-bert". Raises ArgumentError or ModelFormatError when there is none."""
    return find_folder(model)


def tokenizer_of(model: str, vocab_file: str | None = None) -> Tokenizer:
    """The tokenizer of a model, or of a WordPiece vocabulary (vocab.txt)."""
    if vocab_file is not None:
        if not Path(vocab_file).is_file():
            raise qx.errors.TokenizerError(f"there is no vocabulary file {vocab_file}")
        return Tokenizer(tokenizer_from_vocabulary(Path(vocab_file), {}))
    folder = folder_of(model)
    text = read_tokenizer(folder)
    if text is None:
        raise qx.errors.TokenizerError(f"{folder.name} has no tokenizer.json and no vocab.txt")
    return Tokenizer(text)


def encode(tokenizer: Tokenizer, text: str) -> tuple[Encoding, list[np.ndarray]]:
    """A text as tokens, and the three inputs of the homework, each int32 `[1, S]`: ids, token types, positions."""
    (encoding,) = tokenizer.encode([text], masks=True)
    ids = np.array([encoding.ids], np.int32)
    return encoding, [ids, np.zeros_like(ids), np.arange(ids.shape[1], dtype=np.int32)[None]]


def print_top(tokenizer: Tokenizer, text: str, encoding: Encoding, logits: np.ndarray) -> list[str]:
    """Prints and returns the ten most likely words for the mask.

    Args:
        logits: `[1, S, V]`.
    Raises:
        InputError: unless the text has exactly one mask.
    """
    places = [i for i, token in enumerate(encoding.ids) if token == tokenizer.mask_id]
    if len(places) != 1:
        raise qx.errors.InputError(f"the text has {len(places)} masks, expected one [MASK]: {text!r}")
    probabilities = softmax(logits[0, places[0]])
    words = []
    for token in best(probabilities, TOP):
        words.append(tokenizer.word(token))
        print(f"{probabilities[token]:8.4f}  {words[-1]:<16} {tokenizer.fill(text, words[-1])}")
    return words


def logger_of(verbose: bool) -> logging.Logger:
    """A logger that writes to stderr: layers too with `verbose`."""
    logger = logging.getLogger("homework")
    logger.handlers = [logging.StreamHandler(sys.stderr)]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    return logger


def run_command(main) -> int:
    """Runs a script's main function; an error of qontext becomes one line and exit status 2."""
    try:
        return main()
    except qx.errors.QontextError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
