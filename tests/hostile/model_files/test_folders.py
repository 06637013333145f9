"""Rows 6 to 10 of the hardening list: configurations, weights and tokenizers that do not add up."""

import json
import pickle

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

import qontext as qx
from qontext.errors import ArgumentError, ModelFormatError, TokenizerError, UnsupportedModelError, WeightsError

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    tf.BertForMaskedLM(tf.BertConfig(**SIZES, max_position_embeddings=20)).save_pretrained(tmp_path)
    return tmp_path


def change(folder, **values):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.update(values)
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def change_weights(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def test_all_weight_problems_come_at_once(folder):
    def edit(tensors):
        up = "bert.encoder.layer.0.intermediate.dense.weight"
        tensors[up] = tensors[up].T
        del tensors["bert.encoder.layer.1.output.dense.bias"]
        tensors["bert.embeddings.LayerNorm.weight"] = torch.zeros(17)
        tensors["bert.encoder.layer.7.extra"] = torch.zeros(3)
        tensors["bert.encoder.layer.0.output.dense.bias"] = torch.zeros(16, dtype=torch.int32)

    change_weights(folder, edit)
    with pytest.raises(WeightsError) as caught:
        qx.import_model(folder)
    text = str(caught.value)
    assert "5 problems" in text
    assert "missing: bert.encoder.layer.1.output.dense.bias [16]" in text
    assert "intermediate.dense.weight is [16, 24], expected [24, 16] (it is transposed)" in text
    assert "LayerNorm.weight is [17], expected [16]" in text
    assert "left over: bert.encoder.layer.7.extra [3]" in text
    assert "is torch.int32" in text


def test_nan_weights_warn_or_refuse(folder):
    change_weights(folder, lambda t: t["bert.encoder.layer.0.output.dense.bias"].fill_(float("nan")))
    with pytest.warns(UserWarning, match=r"NaN or Inf: bert\.encoder\.layer\.0\.output\.dense\.bias"):
        qx.import_model(folder)
    with pytest.raises(WeightsError, match=r"NaN or Inf.*\n.*layer\.0\.output\.dense\.bias"):
        qx.import_model(folder, check_weights="strict")
    assert qx.import_model(folder, check_weights="off").task == "fill-mask"
    with pytest.raises(ArgumentError, match="check_weights is 'maybe'"):
        qx.import_model(folder, check_weights="maybe")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_of_eight_bits_are_refused(folder, dtype):
    def edit(tensors):
        for name in [n for n, t in tensors.items() if t.dim() == 2]:
            tensors[name] = tensors[name].to(dtype)

    change_weights(folder, edit)
    with pytest.raises(
        UnsupportedModelError, match=r"(?s)dequantise them first.*word_embeddings\.weight is torch\.float8"
    ):
        qx.import_model(folder)


def test_positions_after_the_padding_must_be_left(tmp_path):
    sizes = {**SIZES, "vocab_size": 99, "max_position_embeddings": 20}
    tf.RobertaModel(tf.RobertaConfig(**sizes, pad_token_id=1)).save_pretrained(tmp_path)
    assert qx.import_model(tmp_path).config["max_length"] == 18
    for pad in (19, 90):
        change(tmp_path, pad_token_id=pad)
        with pytest.raises(ModelFormatError, match=f"is 20, and positions begin at {pad + 1}.*none is left"):
            qx.import_model(tmp_path)
    change(tmp_path, pad_token_id=None)
    with pytest.raises(ModelFormatError, match="pad_token_id is 'None'"):
        qx.import_model(tmp_path)
    change(tmp_path, pad_token_id=...)
    assert qx.import_model(tmp_path).config["pad_token_id"] == 1


def test_mpnet_with_too_few_buckets(tmp_path):
    sizes = {**SIZES, "max_position_embeddings": 20, "relative_attention_num_buckets": 16}
    tf.MPNetModel(tf.MPNetConfig(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(ModelFormatError, match="relative_attention_num_buckets is 16, allowed are 32 to"):
        qx.import_model(tmp_path)


class _Payload:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was opened",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_never_opened(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(_Payload()))
    with pytest.raises(ModelFormatError, match=f"{name}.*never opened; convert"):
        qx.import_model(folder)
    with pytest.raises(ArgumentError, match="is a pickle, which can run code"):
        qx.import_model(folder / name)


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"model_type": "mystery"}, UnsupportedModelError, "model_type 'mystery'; known are bert, roberta"),
        ({"model_type": "mystery", "auto_map": {"AutoModel": "evil.py"}}, UnsupportedModelError, "never run"),
        ({"num_attention_heads": 3}, ModelFormatError, "hidden_size 16 is no multiple of num_attention_heads 3"),
        ({"num_hidden_layers": 10**9}, ModelFormatError, "num_hidden_layers is 1000000000, allowed are 1 to"),
        (
            {"hidden_size": -16, "vocab_size": "many"},
            ModelFormatError,
            r"(?s)2 problems.*'many'.*-16|2 problems.*-16.*'many'",
        ),
        ({"intermediate_size": ...}, ModelFormatError, "intermediate_size is 'None', expected a whole number"),
        ({"hidden_act": "__import__('os')"}, ModelFormatError, "hidden_act is"),
        ({"layer_norm_eps": "nan"}, ModelFormatError, "layer_norm_eps"),
        ({"is_decoder": True}, UnsupportedModelError, "decoder"),
        ({"hidden_act": []}, ModelFormatError, r"hidden_act is '\[\]'"),
        ({"model_type": ["bert"]}, UnsupportedModelError, "model_type"),
        ({"position_embedding_type": [1]}, UnsupportedModelError, r"position_embedding_type '\[1\]'"),
        ({"quantization_config": {"bits": 4}}, UnsupportedModelError, "quantised.*dequantise them first"),
        ({"pad_token_id": "x"}, ModelFormatError, "pad_token_id is 'x', expected a whole number"),
        ({"pad_token_id": True}, ModelFormatError, "pad_token_id is 'True'"),
        ({"pad_token_id": 40}, ModelFormatError, "pad_token_id is 40, allowed are 0 to 39"),
        ({"pad_token_id": -1}, ModelFormatError, "pad_token_id is -1"),
        ({"id2label": [1]}, ModelFormatError, "id2label is a list"),
        ({"id2label": {"1": "a", "2": "b"}}, ModelFormatError, "id2label has keys '1', '2', expected 0 to 1"),
        ({"id2label": {"0": ["a"]}}, ModelFormatError, "names that are no text"),
        ({"num_labels": True}, ModelFormatError, "num_labels is 'True'"),
        ({"num_labels": 0}, ModelFormatError, "num_labels is '0'"),
        ({"problem_type": ["x"]}, ModelFormatError, "problem_type is"),
        ({"vocab_size": 41}, WeightsError, r"word_embeddings.weight is \[40, 16\], expected \[41, 16\]"),
    ],
)
def test_bad_configurations(folder, values, error, words):
    change(folder, **values)
    with pytest.raises(error, match=words):
        qx.import_model(folder)


@pytest.mark.parametrize("task", [None, "encode"])
def test_auto_map_on_a_known_family_is_refused(folder, task):
    change(folder, auto_map={"AutoModel": "evil.Evil"})
    (folder / "evil.py").write_text("raise SystemExit('the code of the folder was run')")
    with pytest.raises(
        UnsupportedModelError, match=r"never run.*plain bert, remove auto_map.*export the model to ONNX"
    ):
        qx.import_model(folder, task=task)
    change(folder, auto_map=...)
    assert qx.import_model(folder).task == "fill-mask"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "[" * 100_000]
)
def test_broken_config_files(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelFormatError, match=r"config\.json"):
        qx.import_model(folder)


def test_what_is_no_model_at_all(tmp_path):
    with pytest.raises(ModelFormatError, match=r"no config\.json"):
        qx.import_model(tmp_path)
    with pytest.raises(ArgumentError, match="is no folder"):
        qx.import_model(tmp_path / "nothing" / "here")
    with pytest.raises(ArgumentError, match="cannot import a int"):
        qx.import_model(7)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ArgumentError, match="is a file"):
        qx.import_model(tmp_path / "notes.txt")


def test_tokenizers_that_do_not_fit(folder):
    from tokenizers import Tokenizer, models

    pieces = {f"w{i}": i for i in range(60)}
    Tokenizer(models.WordPiece(pieces, unk_token="w0")).save(str(folder / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"ids? 59|up to id 59, the model has embeddings for 40"):
        qx.import_model(folder)
    (folder / "tokenizer.json").write_text("{broken")
    with pytest.raises(TokenizerError, match="no valid JSON"):
        qx.import_model(folder)


def test_a_cyclic_or_odd_tokenizer_is_refused_when_used(folder):
    (folder / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a"]]}})
    )
    engine = qx.build(qx.import_model(folder), tune=False)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be used"):
        qx.pipeline("fill-mask", engine)


def test_a_huge_tokenizer_is_refused_by_its_size(folder, monkeypatch):
    from qontext.importers.huggingface import files

    monkeypatch.setattr(files, "MAX_TOKENIZER_BYTES", 1000)
    (folder / "tokenizer.json").write_text(" " * 1001)
    with pytest.raises(ModelFormatError, match="has 1001 bytes, at most 1000"):
        qx.import_model(folder)
