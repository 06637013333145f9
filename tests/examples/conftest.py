"""A tiny BERT with a tokenizer, as a Hugging Face folder: the examples run on it as they would on a real one."""

import io
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertForQuestionAnswering

ROOT = Path(__file__).parents[2]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT = "the capital of france , contains eiffel tower . paris lyon rome what is italy and a city river ? seine"
WORDS = TEXT.split()
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    """A masked language model; biases and norms are random too, so that each of them counts."""
    return _folder(tmp_path_factory.mktemp("bert"), BertForMaskedLM)


@pytest.fixture(scope="session")
def answering(tmp_path_factory) -> Path:
    """A question answering model."""
    return _folder(tmp_path_factory.mktemp("answering"), BertForQuestionAnswering)


def _folder(folder: Path, kind: type) -> Path:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    model = kind(BertConfig(vocab_size=len(vocabulary), **SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Done:
    """A script that has ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def run_example():
    """Runs a script of the examples as the main program, in this process: folder, script, arguments."""

    def run(folder: str, script: str, *arguments: object) -> Done:
        place = ROOT / "examples" / folder
        siblings = {path.stem for path in place.glob("*.py")}
        # Folders have files of the same names, as their originals have: each run sees only its own.
        hidden = {name: sys.modules.pop(name) for name in siblings if name in sys.modules}
        argv, sys.argv = sys.argv, [script, *map(str, arguments)]
        sys.path.insert(0, str(place))
        out, err = io.StringIO(), io.StringIO()
        status = 0
        try:
            with redirect_stdout(out), redirect_stderr(err):
                runpy.run_path(str(place / script), run_name="__main__")
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            sys.argv = argv
            sys.path.remove(str(place))
            for name in siblings:
                sys.modules.pop(name, None)
            sys.modules.update(hidden)
        return Done(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def run_command():
    """Runs a script of the examples with a Python of its own."""

    def run(folder: str, script: str, *arguments: object) -> Done:
        done = subprocess.run(
            [sys.executable, script, *map(str, arguments)],
            cwd=ROOT / "examples" / folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run
