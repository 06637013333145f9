"""Prompts as text: whole words, pieces as they come, and the command line."""

import json

import decoders
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner

import qontext as qx
from qontext.cli.main import app

WORDS = ["[UNK]", *(f"word{i}" for i in range(decoders.VOCABULARY - 1))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("words")
    decoders.saved(decoders.llama(), place)
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(place / "tokenizer.json"))
    return place


def test_text_goes_in_and_comes_out(folder):
    engine = qx.build(qx.import_model(folder), tune=False)
    ids = [[3, 4, 5], [9]]
    texts = [" ".join(WORDS[i] for i in row) for row in ids]
    want = [" ".join(WORDS[i] for i in row) for row in engine.generate(ids, 5)]
    assert engine.generate(texts, 5) == want
    assert engine.generate(texts[0], 5) == want[0]
    pieces = ["", ""]
    for row, piece in engine.generate(texts, 5, stream=True):
        pieces[row] += piece
    assert pieces == want


@pytest.mark.parametrize("cache", ["paged", "contiguous"])
def test_command(folder, cache):
    engine = qx.build(qx.import_model(folder), tune=False)
    text = "word3 word4"
    result = CliRunner().invoke(app, ["generate", "-m", str(folder), text, "-n", "4", "--cache", cache, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["results"]
    assert found == [{"prompt": text, "generated": engine.generate(text, 4)}]
    plain = CliRunner().invoke(app, ["generate", "-m", str(folder), "3, 4", "--ids", "-n", "4", "--cache", cache])
    assert plain.stdout.split() == [str(t) for t in engine.generate([3, 4], 4)]


def test_command_draws_and_searches(folder):
    engine = qx.build(qx.import_model(folder), tune=False)
    text = "word3 word4"
    for flags, arguments in (
        (["--temperature", "1.5", "--top-k", "9", "--top-p", "0.9", "--seed", "3"],
         {"temperature": 1.5, "top_k": 9, "top_p": 0.9, "seed": 3}),
        (["--beams", "3", "--length-penalty", "0.5"], {"beams": 3, "length_penalty": 0.5}),
    ):  # fmt: skip
        result = CliRunner().invoke(app, ["generate", "-m", str(folder), text, "-n", "4", "--json", *flags])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["results"][0]["generated"] == engine.generate(text, 4, **arguments)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_command_with_eight_bit_caches(folder, kind):
    text = "word3 word4"
    held = qx.KvCache(kind, samples=[text])
    engine = qx.build(qx.import_model(folder), kv_cache=held, tune=False)
    result = CliRunner().invoke(app, ["generate", "-m", str(folder), text, "-n", "4", "--kv-cache", kind, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["results"][0]["generated"] == engine.generate(text, 4)
