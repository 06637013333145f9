"""A tiny BERT with a tokenizer, as a Hugging Face folder: the examples run on it as they would on a real one."""

import os
import subprocess
import sys
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


@pytest.fixture(scope="session")
def run_example():
    """Runs a script of the examples as a user would; returns the finished process."""

    def run(folder: str, script: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, script, *map(str, arguments)],
            cwd=cwd or ROOT / "examples" / folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
