"""Many texts: tokenised ahead, run in batches, results in the caller's order."""

import sys
import threading

import numpy as np
import pytest
import torch

import qontext as qx
from qontext.errors import TokenizerError
from qontext.tasks.pipeline import BATCH_TOKENS
from qontext.tasks.stream import ahead


def test_the_next_piece_is_worked_on_while_the_present_one_is_used():
    begun = [threading.Event() for _ in range(4)]

    def work(number):
        begun[number].set()
        return number

    for number in ahead(range(4), work):
        assert number == 3 or begun[number + 1].wait(10)


def test_errors_of_the_work_reach_the_caller():
    def work(number):
        if number == 2:
            raise TokenizerError("piece 2")
        return number

    found = []
    with pytest.raises(TokenizerError, match="piece 2"):
        found.extend(ahead(range(4), work))
    assert list(ahead([], work)) == []
    assert list(ahead([1], work)) == [1]


@pytest.fixture(scope="module")
def embed(folder):
    return qx.pipeline("embed", folder("Model")[0])


def texts(count):
    words = ["the", "capital", "of", "france", "is", "paris", "rhine", "big"]
    generator = np.random.default_rng(5)
    return [" ".join(generator.choice(words, int(n))) for n in generator.integers(1, 30, count)]


def test_pieces_and_small_batches_give_what_single_texts_give(embed, monkeypatch):
    given = texts(23)
    monkeypatch.setattr(sys.modules["qontext.tasks.pipeline"], "PIECE", 5)
    monkeypatch.setitem(BATCH_TOKENS, "cpu", 64)
    seen = []
    together = embed(given, progress=seen.append)
    assert sum(seen) == len(given)
    assert len(seen) > 5
    np.testing.assert_allclose(together, np.concatenate([embed(t) for t in given]), rtol=1e-4, atol=1e-5)


def test_tokens_are_those_of_the_full_encoding_also_where_texts_are_cut(embed):
    given = [*texts(9), "paris " * 80, "", "\ud800"]
    for limit in (None, 12):
        fast, full = embed.tokenizer.tokens(given, limit), embed.tokenizer.encode(given, limit)
        assert [tuple(t.ids) for t in fast] == [t.ids for t in full]
        assert [tuple(t.type_ids) or (0,) * len(t.ids) for t in fast] == [t.type_ids for t in full]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_host_gives(embed, folder, monkeypatch):
    on_gpu = qx.pipeline("embed", folder("Model")[0], device="cuda")
    monkeypatch.setattr(sys.modules["qontext.tasks.pipeline"], "PIECE", 50)
    monkeypatch.setitem(BATCH_TOKENS, "cuda", 512)
    given = texts(300)
    np.testing.assert_allclose(on_gpu(given), embed(given), rtol=1e-3, atol=1e-4)
