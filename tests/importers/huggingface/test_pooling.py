"""Sentence encoders: what their files ask for, and numbers equal to pooling in torch."""

import json
import shutil

import pytest
import torch
from test_parity import ragged, saved

import qontext as qx
from qontext.dtypes import BY_NAME, relative_rms
from qontext.errors import ModelFormatError, UnsupportedModelError
from qontext.tasks.tokenizer import Tokenizer

MODULES = ("Transformer", "Pooling", "Normalize")


def sentence(folder, settings, modules=MODULES, family="Bert", head="Model", inner=""):
    """A random sentence encoder with the given settings of its pooling."""
    model = saved(family, head, folder / inner)
    places = {"Transformer": inner, "Pooling": "1_Pooling"}
    rows = [{"type": f"sentence_transformers.models.{m}", "path": places.get(m, f"2_{m}")} for m in modules]
    (folder / "modules.json").write_text(json.dumps(rows))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return model


def pooled(hidden, mask, modes):
    """The definition, in torch."""
    real = mask.bool()[..., None]
    found = {
        "cls": hidden[:, 0],
        "max": hidden.masked_fill(~real, float("-inf")).amax(1),
        "mean": (hidden * real).sum(1) / real.sum(1),
    }
    return torch.cat([found[m] for m in modes], -1)


def switches(*modes):
    names = {"cls": "cls_token", "max": "max_tokens", "mean": "mean_tokens"}
    return {f"pooling_mode_{name}": mode in modes for mode, name in names.items()}


@pytest.mark.parametrize(
    ("settings", "modes"),
    [
        (switches("cls"), ["cls"]),
        (switches("max"), ["max"]),
        (switches("mean"), ["mean"]),
        (switches("mean", "cls"), ["cls", "mean"]),
        (switches("cls", "max", "mean"), ["cls", "max", "mean"]),
        ({"pooling_mode": "max"}, ["max"]),
        ({"pooling_mode": ["mean", "cls"], **switches("max")}, ["mean", "cls"]),
        ({}, ["mean"]),
    ],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_equals_torch(settings, modes, normalize, tmp_path):
    reference = sentence(tmp_path, settings, MODULES if normalize else MODULES[:2])
    model = qx.import_model(tmp_path)
    assert (model.task, model.config["pooling"], model.config["normalize"]) == ("embed", modes, normalize)
    ids, mask = ragged(0)
    with torch.no_grad():
        want = pooled(reference(input_ids=ids, attention_mask=mask).last_hidden_state, mask, modes)
    want = torch.nn.functional.normalize(want, dim=-1) if normalize else want
    got = qx.build(model, tune=False).run({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
    assert got.shape == (3, 48 * len(modes))
    assert relative_rms(got, want) < BY_NAME["float32"].tolerance


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_pooling_in_narrow_types(precision, tmp_path):
    reference = sentence(tmp_path, {"pooling_mode": ["cls", "max", "mean"]})
    engine = qx.build(qx.import_model(tmp_path), precision, tune=False)
    ids, mask = ragged(0)
    with torch.no_grad():
        hidden = reference(input_ids=ids, attention_mask=mask).last_hidden_state
    want = torch.nn.functional.normalize(pooled(hidden, mask, ("cls", "max", "mean")), dim=-1)
    got = engine.run({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
    kind = {"fp16": "float16", "bf16": "bfloat16"}[precision]
    # Two layers of wide random weights stand between input and pooling: each rounds, so that errors add up.
    assert relative_rms(got, want) < 5 * BY_NAME[kind].tolerance
    mask[2] = 0
    got = engine.run({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
    assert bool(torch.isfinite(got).all())


def test_the_head_of_a_language_model_is_dropped(tmp_path):
    sentence(tmp_path, {"pooling_mode": "mean"}, head="ForMaskedLM")
    assert qx.import_model(tmp_path).task == "embed"
    assert qx.import_model(tmp_path, task="fill-mask").task == "fill-mask"


@pytest.mark.parametrize(
    ("settings", "modules", "words"),
    [
        ({}, ("Transformer", "Pooling", "Dense"), "Transformer, Pooling, Dense; qontext knows"),
        ({}, ("Transformer",), "has Transformer; qontext knows"),
        ({}, ("Transformer", "Normalize", "Pooling"), "has Transformer, Normalize, Pooling"),
        ({"pooling_mode": "lasttoken"}, MODULES, "asks for lasttoken; known are cls, max, mean"),
        ({"pooling_mode": ["mean", "other"]}, MODULES, "asks for other"),
        ({"pooling_mode_weightedmean_tokens": True}, MODULES, "asks for weightedmean"),
    ],
)
def test_what_is_not_supported_blocks_embeddings_only(settings, modules, words, tmp_path):
    sentence(tmp_path, settings, modules, head="ForMaskedLM")
    for task in (None, "embed"):
        with pytest.raises(UnsupportedModelError, match=words):
            qx.import_model(tmp_path, task=task)
    for task in ("encode", "fill-mask"):
        assert qx.import_model(tmp_path, task=task).task == task


@pytest.mark.parametrize("value", [[], 7, [None], {"a": 1}])
def test_a_pooling_mode_of_a_wrong_type(value, tmp_path):
    sentence(tmp_path, {"pooling_mode": value})
    with pytest.raises(ModelFormatError, match="expected a name or a list of names"):
        qx.import_model(tmp_path)


def test_missing_settings_are_refused(tmp_path):
    sentence(tmp_path, {})
    shutil.rmtree(tmp_path / "1_Pooling")
    with pytest.raises(ModelFormatError, match=r"1_Pooling/config\.json, the settings of the pooling, is missing"):
        qx.import_model(tmp_path)


def test_the_transformer_may_lie_in_a_folder_of_its_own(tmp_path):
    reference = sentence(tmp_path, {"pooling_mode": "cls"}, inner="0_Transformer")
    (tmp_path / "0_Transformer" / "sentence_bert_config.json").write_text('{"max_seq_length": 30}')
    model = qx.import_model(tmp_path)
    assert (model.name, model.task, model.config["max_length"]) == (tmp_path.name, "embed", 30)
    ids, mask = ragged(0)
    with torch.no_grad():
        want = reference(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
    got = qx.build(model, tune=False).run({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
    assert relative_rms(got, torch.nn.functional.normalize(want, dim=-1)) < BY_NAME["float32"].tolerance


@pytest.mark.parametrize("place", ["../other", "/etc", "a/../../b", 7, "link"])
def test_modules_stay_in_the_folder(place, tmp_path):
    folder = tmp_path / "model"
    sentence(folder, {})
    (folder / "link").symlink_to(tmp_path)
    rows = json.loads((folder / "modules.json").read_text())
    rows[0]["path"] = place
    (folder / "modules.json").write_text(json.dumps(rows))
    with pytest.raises(ModelFormatError, match=r"expected a sub-folder|is a link out of the folder"):
        qx.import_model(folder)


@pytest.mark.parametrize(
    ("settings", "tokenizer", "limit"),
    [
        ({"max_seq_length": 20}, {"model_max_length": 30}, 20),
        ({"max_seq_length": None}, {"model_max_length": 30}, 30),
        ({}, {"model_max_length": 1e30}, 41),
        ({"max_seq_length": 900}, {}, 41),
    ],
)
def test_the_longest_sequence(settings, tokenizer, limit, tmp_path):
    sentence(tmp_path, {})
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(settings))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    assert qx.import_model(tmp_path).config["max_length"] == limit


@pytest.mark.parametrize("wrong", [{"max_seq_length": 0}, {"max_seq_length": "long"}, {"do_lower_case": "yes"}])
def test_settings_of_a_wrong_type(wrong, tmp_path):
    sentence(tmp_path, {})
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(wrong))
    with pytest.raises(ModelFormatError, match=r"max_seq_length is|do_lower_case is"):
        qx.import_model(tmp_path)


@pytest.mark.parametrize("lower", [False, True])
def test_text_is_lower_cased_where_the_files_say_so(lower, tmp_path):
    sentence(tmp_path, {})
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": lower}))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Paris", "paris"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    model = qx.import_model(tmp_path)
    assert list(Tokenizer(model.tokenizer, model.config).encode(["Paris"])[0].ids) == [2, 6 if lower else 5, 3]
    assert "Paris" in json.loads(model.tokenizer)["model"]["vocab"]
