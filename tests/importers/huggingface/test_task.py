"""Which task a folder gets: from its architecture, from the caller, or refused."""

import json

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file
from test_parity import saved

import qontext as qx
from qontext.errors import ArgumentError, ModelFormatError, UnsupportedModelError, WeightsError


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    "architecture",
    ["BertForMultipleChoice", "BertLMHeadModel", "BertForNextSentencePrediction", "Other", "RobertaModel"],
)
def test_architectures_without_head_here_are_refused(architecture, tmp_path):
    saved("Bert", "Model", tmp_path)
    change(tmp_path, architectures=[architecture])
    with pytest.raises(UnsupportedModelError, match=rf"{architecture} has no head here.*task='encode'"):
        qx.import_model(tmp_path)
    assert qx.import_model(tmp_path, task="encode").task == "encode"


@pytest.mark.parametrize("head", ["ForMultipleChoice", "ForNextSentencePrediction"])
def test_the_encoder_alone_may_be_taken(head, tmp_path):
    saved("Bert", head, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({**weights, "own_head.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    assert qx.import_model(tmp_path, task="encode").task == "encode"
    change(tmp_path, architectures=["BertModel"])
    with pytest.raises(WeightsError, match=r"left over: own_head\.weight"):
        qx.import_model(tmp_path, task="encode")


@pytest.mark.parametrize(
    ("family", "head", "task"),
    [
        ("Electra", "ForPreTraining", "encode"),
        ("Bert", "ForPreTraining", "fill-mask"),
        ("Albert", "ForPreTraining", "fill-mask"),
    ],
)
def test_what_pretraining_leaves(family, head, task, tmp_path):
    saved(family, head, tmp_path)
    assert qx.import_model(tmp_path).task == task


def test_several_architectures(tmp_path):
    saved("Bert", "ForMaskedLM", tmp_path)
    change(tmp_path, architectures=["BertForMaskedLM", "BertForPreTraining"])
    assert qx.import_model(tmp_path).task == "fill-mask"
    change(tmp_path, architectures=["BertForMaskedLM", "BertModel"])
    with pytest.raises(UnsupportedModelError, match=r"several tasks: BertForMaskedLM, BertModel. Pass the task"):
        qx.import_model(tmp_path)
    for wrong in (5, "BertModel", [None], {"a": 1}):
        change(tmp_path, architectures=wrong)
        with pytest.raises(ModelFormatError, match="expected a list of names"):
            qx.import_model(tmp_path)


def test_an_untied_decoder_must_be_there(tmp_path):
    saved("Bert", "ForMaskedLM", tmp_path)
    change(tmp_path, tie_word_embeddings=False)
    with pytest.raises(WeightsError, match=r"missing: cls\.predictions\.decoder\.weight \[99, 48\]"):
        qx.import_model(tmp_path)
    assert qx.import_model(tmp_path, task="encode").task == "encode"
    change(tmp_path, tie_word_embeddings="no")
    with pytest.raises(ModelFormatError, match="tie_word_embeddings is 'no'"):
        qx.import_model(tmp_path)


def test_names_are_compared_whole(tmp_path):
    saved("Bert", "ForSequenceClassification", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["classifierX.weight"] = weights["classifier.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 problem\n.*left over: classifierX\.weight"):
        qx.import_model(tmp_path, task="encode")


def test_albert_without_hidden_act_has_its_own_default(tmp_path):
    assert tf.AlbertConfig().hidden_act == "gelu_new"
    saved("Albert", "Model", tmp_path)
    want = str([n.op_type for n in qx.import_model(tmp_path).graph])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("hidden_act") == "gelu_new"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert str([n.op_type for n in qx.import_model(tmp_path).graph]) == want
    change(tmp_path, hidden_act="gelu")
    model = qx.import_model(tmp_path)
    assert _gelu(model) == {"none"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert _gelu(qx.import_model(tmp_path)) == {"tanh"}


def _gelu(model):
    nodes = [n for n in model.graph if n.op_type == "Gelu"]
    return {n.attributes["approximate"].as_string() if "approximate" in n.attributes else "none" for n in nodes}


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "Electra", "Albert", "MPNet"])
@pytest.mark.parametrize(
    ("head", "task"),
    [
        ("Model", "encode"),
        ("ForMaskedLM", "fill-mask"),
        ("ForSequenceClassification", "classify"),
        ("ForTokenClassification", "token-classify"),
        ("ForQuestionAnswering", "answer"),
    ],
)
def test_without_architectures_the_weights_say_the_head(family, head, task, tmp_path):
    saved(family, head, tmp_path)
    named = qx.import_model(tmp_path)
    change(tmp_path, architectures=None)
    found = qx.import_model(tmp_path)
    assert found.task == named.task == task
    assert [o.name for o in found.graph.outputs] == [o.name for o in named.graph.outputs]


def test_without_architectures_several_heads_are_refused(tmp_path):
    saved("Bert", "ForMaskedLM", tmp_path)
    change(tmp_path, architectures=[])
    weights = load_file(tmp_path / "model.safetensors")
    extra = {"qa_outputs.weight": torch.ones(2, 24), "qa_outputs.bias": torch.ones(2)}
    save_file({**weights, **extra}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="names no architecture, and the weights have heads for"):
        qx.import_model(tmp_path)
    assert qx.import_model(tmp_path, task="fill-mask").task == "fill-mask"


@pytest.mark.parametrize("source", ["", "  "])
def test_an_empty_source_is_refused(source):
    with pytest.raises(ArgumentError, match="the source is empty"):
        qx.import_model(source)
