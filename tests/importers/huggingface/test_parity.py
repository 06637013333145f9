"""Parity with Hugging Face transformers: every family, every head, random tiny configurations, ragged masks."""

import pytest
import torch
import transformers as tf

import qontext as qx
from qontext.dtypes import BY_NAME, relative_rms
from qontext.errors import UnsupportedModelError

SIZES = {
    "vocab_size": 99,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 77,
    "max_position_embeddings": 41,
}
FAMILIES = {
    "Bert": (tf.BertConfig, {**SIZES, "hidden_act": "gelu_new"}),
    "Roberta": (tf.RobertaConfig, {**SIZES, "pad_token_id": 1}),
    "XLMRoberta": (tf.XLMRobertaConfig, {**SIZES, "pad_token_id": 3, "hidden_act": "relu"}),
    "DistilBert": (
        tf.DistilBertConfig,
        {"vocab_size": 99, "dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 77, "max_position_embeddings": 41},
    ),
    "Electra": (tf.ElectraConfig, {**SIZES, "embedding_size": 31}),
    "Albert": (tf.AlbertConfig, {**SIZES, "embedding_size": 31, "num_hidden_layers": 4, "num_hidden_groups": 2}),
    "MPNet": (tf.MPNetConfig, {**SIZES, "pad_token_id": 1, "hidden_act": "silu"}),
}
HEADS = {
    "Model": ("encode", ("last_hidden_state",)),
    "ForMaskedLM": ("fill-mask", ("logits",)),
    "ForSequenceClassification": ("classify", ("logits",)),
    "ForTokenClassification": ("token-classify", ("logits",)),
    "ForQuestionAnswering": ("answer", ("start_logits", "end_logits")),
}
FUSED = {"EmbedLayerNorm": 1, "QKVToContext": 2, "SkipLayerNorm": 4}


def saved(family, head, folder, **changes):
    """A random model of a family, saved to a folder."""
    config, sizes = FAMILIES[family]
    torch.manual_seed(0)
    model = getattr(tf, family + head)(config(**{**sizes, **changes})).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    model.save_pretrained(folder)
    return model


def ragged(pad: int):
    torch.manual_seed(1)
    ids = torch.randint(5, 99, (3, 23))
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    mask[2, 1:] = 0
    ids[mask == 0] = pad
    return ids, mask


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_transformers_on_real_tokens(family, head, tmp_path):
    reference = saved(family, head, tmp_path, num_labels=2 if "Question" in head else 4)
    task, outputs = HEADS[head]
    model = qx.import_model(tmp_path)
    assert model.task == task
    engine = qx.build(model, tune=False)
    ids, mask = ragged(reference.config.pad_token_id)
    with torch.no_grad():
        want = reference(input_ids=ids, attention_mask=mask)
    got = engine.run({"input_ids": ids, "attention_mask": mask})
    for name in outputs:
        a, b = got[name], getattr(want, name)
        if a.dim() >= 2 and a.shape[:2] == mask.shape:
            a, b = a[mask.bool()], b[mask.bool()]
        assert relative_rms(a, b) < BY_NAME["float32"].tolerance
    kinds = [s.op for s in engine.compiled.programs["encode"].steps]
    layers = 4 if family == "Albert" else 2
    assert {op: kinds.count(op) for op in FUSED} == {
        "EmbedLayerNorm": 1,
        "QKVToContext": layers,
        "SkipLayerNorm": 2 * layers,
    }
    assert not {"Attention", "Gelu", "Softmax"} & set(kinds)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "Albert"])
def test_optional_inputs_may_be_given(family, tmp_path):
    reference = saved(family, "Model", tmp_path)
    engine = qx.build(qx.import_model(tmp_path), tune=False)
    ids, mask = ragged(reference.config.pad_token_id)
    types = torch.randint(0, 2, ids.shape)
    if reference.config.type_vocab_size < 2:
        types.zero_()
    positions = torch.randint(0, 23, ids.shape)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "position_ids": positions}
    with torch.no_grad():
        want = reference(**given).last_hidden_state
    got = engine.run(given)["last_hidden_state"]
    assert relative_rms(got[mask.bool()], want[mask.bool()]) < BY_NAME["float32"].tolerance


def test_every_length_up_to_the_maximum(tmp_path):
    reference = saved("Roberta", "Model", tmp_path)
    engine = qx.build(qx.import_model(tmp_path), tune=False)
    assert engine.max_length == 41 - 2
    for length in (1, 2, 39):
        ids = torch.randint(5, 99, (2, length))
        with torch.no_grad():
            want = reference(input_ids=ids).last_hidden_state
        assert relative_rms(engine.run({"input_ids": ids})["last_hidden_state"], want) < BY_NAME["float32"].tolerance


def test_pooler_output(tmp_path):
    reference = saved("Bert", "Model", tmp_path)
    engine = qx.build(qx.import_model(tmp_path), tune=False)
    ids, mask = ragged(0)
    with torch.no_grad():
        want = reference(input_ids=ids, attention_mask=mask).pooler_output
    got = engine.run({"input_ids": ids, "attention_mask": mask})
    assert list(got) == ["last_hidden_state", "pooler_output"]
    assert relative_rms(got["pooler_output"], want) < BY_NAME["float32"].tolerance


@pytest.mark.parametrize("changes", [{"pad_token_id": 5}, {"relative_attention_num_buckets": 64}])
def test_mpnet_has_positions_and_buckets_of_its_own(changes, tmp_path):
    """transformers counts positions from 2 and uses 32 buckets, whatever the configuration says."""
    sizes = {"max_position_embeddings": 300}  # far enough for the shared buckets
    reference = saved("MPNet", "Model", tmp_path, **{**sizes, **changes})
    engine = qx.build(qx.import_model(tmp_path), tune=False)
    assert engine.max_length == 298
    ids = torch.randint(6, 99, (2, 200))
    mask = torch.ones_like(ids)
    mask[1, 150:] = 0
    ids[1, 150:] = reference.config.pad_token_id
    with torch.no_grad():
        want = reference(input_ids=ids, attention_mask=mask).last_hidden_state
    got = engine.run({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
    assert relative_rms(got[mask.bool()], want[mask.bool()]) < BY_NAME["float32"].tolerance


@pytest.mark.parametrize("family", ["Bert", "Roberta", "Electra", "Albert", "MPNet"])
def test_another_epsilon(family, tmp_path):
    ids, mask = ragged(1)
    results = {}
    for epsilon in (1e-12, 0.05):
        reference = saved(family, "Model", tmp_path, layer_norm_eps=epsilon, pad_token_id=1)
        with torch.no_grad():
            want = reference(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
        engine = qx.build(qx.import_model(tmp_path), tune=False)
        got = engine.run({"input_ids": ids, "attention_mask": mask})["last_hidden_state"][mask.bool()]
        assert relative_rms(got, want) < BY_NAME["float32"].tolerance
        results[epsilon] = got
    assert relative_rms(results[0.05], results[1e-12]) > 100 * BY_NAME["float32"].tolerance


def test_untied_decoder_is_used(tmp_path):
    reference = saved("Bert", "ForMaskedLM", tmp_path, tie_word_embeddings=False)
    engine = qx.build(qx.import_model(tmp_path), tune=False)
    ids, mask = ragged(0)
    with torch.no_grad():
        want = reference(input_ids=ids, attention_mask=mask).logits
    got = engine.run({"input_ids": ids, "attention_mask": mask})["logits"]
    assert relative_rms(got[mask.bool()], want[mask.bool()]) < BY_NAME["float32"].tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_checkpoints_are_widened(dtype, tmp_path):
    reference = saved("Bert", "Model", tmp_path).to(dtype)
    reference.save_pretrained(tmp_path)
    engine = qx.build(qx.import_model(tmp_path), tune=False)
    ids, mask = ragged(0)
    with torch.no_grad():
        want = reference.float()(input_ids=ids, attention_mask=mask).last_hidden_state
    got = engine.run({"input_ids": ids, "attention_mask": mask})["last_hidden_state"]
    assert relative_rms(got[mask.bool()], want[mask.bool()]) < BY_NAME["float32"].tolerance


def test_another_task_may_be_asked_for(tmp_path):
    saved("Bert", "ForMaskedLM", tmp_path)
    assert list(qx.build(qx.import_model(tmp_path, task="encode"), tune=False).output_names) == ["last_hidden_state"]
    assert qx.import_model(tmp_path, task="embed").config["pooling"] == ["mean"]
    with pytest.raises(Exception, match=r"missing: classifier\.weight"):
        qx.import_model(tmp_path, task="classify")


def test_relative_positions_of_another_kind_are_refused(tmp_path):
    import json

    saved("Bert", "Model", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "position_embedding_type": "relative_key"}))
    with pytest.raises(UnsupportedModelError, match="relative_key"):
        qx.import_model(tmp_path)
