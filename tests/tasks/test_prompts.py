"""Prompts of sentence encoders: the model's default, another one, none."""

import json

import numpy as np
import pytest

import qontext as qx
from qontext.errors import ArgumentError, ModelFormatError, UnsupportedModelError

PROMPTS = {"query": "a b ", "document": ""}


@pytest.fixture
def sentence(folder, vocabulary):
    """A function: (settings of sentence-transformers, settings of the pooling) -> folder."""

    def make(settings, pooling=None):
        path, _ = folder("Model")
        rows = [{"type": f"x.{kind}", "path": place} for kind, place in (("Transformer", ""), ("Pooling", "1_Pooling"))]
        (path / "modules.json").write_text(json.dumps(rows))
        (path / "1_Pooling").mkdir()
        (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {}))
        (path / "config_sentence_transformers.json").write_text(json.dumps(settings))
        return path

    return make


@pytest.fixture
def text(vocabulary):
    return " ".join(w for w in vocabulary[5:] if w.isalpha())[:30]


def test_the_default_prompt_is_used_unless_another_is_asked_for(sentence, text):
    engine = qx.build(qx.import_model(sentence({"prompts": PROMPTS, "default_prompt_name": "query"})), tune=False)
    embed = qx.pipeline("embed", engine)
    assert embed.prompts == PROMPTS
    assert embed.default_prompt == "query"
    plain, asked = embed(text, prompt=""), embed("a b " + text, prompt="")
    assert not np.allclose(plain, asked)
    np.testing.assert_array_equal(embed([text])[0], asked[0])
    np.testing.assert_array_equal(embed(text, prompt="query"), asked)
    np.testing.assert_array_equal(embed(text, prompt="document"), plain)


def test_a_saved_engine_keeps_its_prompts(sentence, text, tmp_path):
    model = qx.import_model(sentence({"prompts": PROMPTS, "default_prompt_name": "query"}))
    engine = qx.build(model, tune=False)
    engine.save(tmp_path / "prompted.qx")
    loaded = qx.pipeline("embed", tmp_path / "prompted.qx")
    np.testing.assert_array_equal(loaded(text), qx.pipeline("embed", engine)("a b " + text, prompt=""))


def test_without_a_default_there_is_none(sentence, text):
    embed = qx.pipeline("embed", sentence({"prompts": PROMPTS, "default_prompt_name": None}))
    np.testing.assert_array_equal(embed(text), embed(text, prompt=""))
    with pytest.raises(ArgumentError, match="has no prompt 'passage'; it has 'query', 'document'"):
        embed(text, prompt="passage")


def test_prompts_left_out_of_the_pooling_are_refused_when_used(sentence, text):
    embed = qx.pipeline("embed", sentence({"prompts": PROMPTS}, {"include_prompt": False}))
    assert embed(text).shape == (1, 32)
    assert embed(text, prompt="document").shape == (1, 32)
    with pytest.raises(UnsupportedModelError, match="leaves the tokens of the prompt 'query' out of its pooling"):
        embed(text, prompt="query")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompts": ["query: "]}, "prompts is no object"),
        ({"prompts": {"query": 3}}, "prompts is no object"),
        ({"prompts": {"query": "x" * 10_001}}, "up to 10000 characters"),
        ({"prompts": {str(i): "" for i in range(1001)}}, "has 1001 prompts"),
        ({"prompts": PROMPTS, "default_prompt_name": "other"}, r"'other', which is none of the prompts \(query, doc"),
        ({"default_prompt_name": "query"}, r"none of the prompts \(none\)"),
    ],
)
def test_prompts_of_a_wrong_kind(sentence, settings, said):
    with pytest.raises(ModelFormatError, match=said):
        qx.import_model(sentence(settings))
