"""Every imported node appears exactly once, for every supported family and for graphs of the exporter."""

import pytest
import torch
import transformers as tf
from exported import SelfAttention, encoder

import qontext as qx
from qontext.report.compare import compare

SMALL = {"vocab_size": 99, "hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 28}
FAMILIES = {
    "bert": (tf.BertForMaskedLM, tf.BertConfig(**SMALL, max_position_embeddings=40)),
    "roberta": (tf.RobertaForSequenceClassification, tf.RobertaConfig(**SMALL, max_position_embeddings=40)),
    "xlm-roberta": (tf.XLMRobertaForTokenClassification, tf.XLMRobertaConfig(**SMALL, max_position_embeddings=40)),
    "distilbert": (
        tf.DistilBertForQuestionAnswering,
        tf.DistilBertConfig(vocab_size=99, dim=20, n_layers=2, n_heads=2, hidden_dim=28, max_position_embeddings=40),
    ),
    "electra": (tf.ElectraModel, tf.ElectraConfig(**SMALL, embedding_size=12, max_position_embeddings=40)),
    "albert": (tf.AlbertModel, tf.AlbertConfig(**SMALL, embedding_size=12, max_position_embeddings=40)),
    "mpnet": (tf.MPNetForTokenClassification, tf.MPNetConfig(**SMALL, max_position_embeddings=40)),
}


DECODERS = {
    "gpt2": (
        tf.GPT2LMHeadModel,
        tf.GPT2Config(vocab_size=99, n_positions=40, n_embd=24, n_layer=3, n_head=2, eos_token_id=None),
    ),
    "llama": (
        tf.LlamaForCausalLM,
        tf.LlamaConfig(**SMALL, num_key_value_heads=1, max_position_embeddings=40, eos_token_id=None),
    ),
    "mistral": (
        tf.MistralForCausalLM,
        tf.MistralConfig(**SMALL, num_key_value_heads=1, head_dim=10, max_position_embeddings=40, eos_token_id=None),
    ),
    "qwen2": (
        tf.Qwen2ForCausalLM,
        tf.Qwen2Config(**SMALL, num_key_value_heads=1, max_position_embeddings=40, eos_token_id=None),
    ),
}


def check(data):
    """All sums of the report: fates, layers, reads."""
    ids = [n["id"] for n in data["nodes"]]
    assert len(set(ids)) == len(ids) == data["accounting"]["imported"] == data["source_nodes"] > 0
    fates = {
        fate: [n["id"] for n in data["nodes"] if n["fate"] == fate] for fate in ("fused", "step", "folded", "removed")
    }
    assert sum(map(len, fates.values())) == len(ids)
    assert all(len(found) == data["accounting"][fate] for fate, found in fates.items())
    live = [i for step in data["steps"] for i in step["sources"]]
    assert sorted(live) == sorted(fates["fused"] + fates["step"])
    for node in data["nodes"]:
        assert (node["step"] is not None) == (node["fate"] in ("fused", "step"))
        if node["step"] is not None:
            assert node["id"] in data["steps"][node["step"]]["sources"]
        assert all(isinstance(r, str) or r < node["id"] for r in node["reads"])
        if node["fate"] in ("folded", "removed"):
            assert node["why"]
    assert sorted(i for layer in data["layers"] for i in layer["nodes"]) == sorted(ids)
    assert sorted(i for layer in data["layers"] for i in layer["steps"]) == list(range(len(data["steps"])))
    for step in data["steps"]:
        assert all(isinstance(r, str) or r < step["index"] for r in step["reads"])
    assert sum(bool(step["gives"]) for step in data["steps"]) > 0
    assert all(not n["type"].startswith("?") for n in data["nodes"] if n["fate"] == "step")


@pytest.mark.parametrize("family", FAMILIES)
def test_folders(family, tmp_path):
    kind, config = FAMILIES[family]
    torch.manual_seed(0)
    kind(config).save_pretrained(tmp_path)
    data = qx.explain(qx.build(qx.import_model(tmp_path), tune=False), measure=False).data
    check(data)
    assert data["accounting"]["fused"] > data["accounting"]["step"]
    numbered = [layer for layer in data["layers"] if layer["path"]]
    assert len(numbered) >= 2 or family == "albert"


@pytest.mark.parametrize("family", DECODERS)
def test_decoders_by_program(family, tmp_path):
    kind, config = DECODERS[family]
    torch.manual_seed(0)
    kind(config).save_pretrained(tmp_path / "folder")
    model = qx.import_model(tmp_path / "folder")
    built = qx.build(model, tune=False)
    built.save(tmp_path / "m.qx")
    loaded = qx.load(tmp_path / "m.qx")
    programs = list(built.compiled.programs)
    assert programs[:3] == ["encode", "prefill", "decode"] and set(programs[3:]) <= {"beams"}
    for name in programs:
        data = qx.explain(built, 2, 12, program=name).data
        check(data)
        assert data["programs"] == programs and data["program"] == name
        assert len([layer for layer in data["layers"] if layer["path"]]) == config.num_hidden_layers
        caches = data["memory"]["caches"]
        heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        layers, size = config.num_hidden_layers, config.hidden_size // config.num_attention_heads
        assert caches == (0 if name == "encode" else 2 * layers * 2 * heads * 64 * size * 4), "two pages of 64 tokens"
        assert qx.explain(loaded, measure=False, program=name).data["nodes"] == data["nodes"]
    assert compare(model, built).ok


@pytest.mark.parametrize("module", [encoder("bert", "sdpa"), SelfAttention(24)], ids=["bert", "notebook"])
def test_exported_modules(module):
    if isinstance(module, SelfAttention):
        examples = {"x": torch.randn(2, 5, 24), "mask": torch.ones(2, 5, 5)}
    else:
        examples = dict.fromkeys(("input_ids", "attention_mask"), torch.ones(2, 7, dtype=torch.long))
    data = qx.explain(qx.build(qx.import_model(module, example_inputs=examples), tune=False), measure=False).data
    check(data)
    assert data["accounting"]["fused"] + data["accounting"]["folded"] + data["accounting"]["removed"] > len(
        data["steps"]
    )


def test_a_loaded_engine_still_has_its_graph(engine, tmp_path):
    engine.save(tmp_path / "m.qx")
    a, b = (qx.explain(e, measure=False).data for e in (engine, qx.load(tmp_path / "m.qx")))
    check(b)
    assert a["nodes"] == b["nodes"] and a["layers"] == b["layers"]


def test_an_engine_without_packing(model):
    check(qx.explain(qx.build(model, tune=False, packing=False), measure=False).data)


def test_times_of_steps_add_up_to_the_run(model):
    """Within 10 %: what a run does beside its steps is small, and what the taps do is not counted.

    One thread and short runs, so that a machine that does other things at the same time disturbs few of them.
    """
    engine = qx.build(model, tune=False)
    ratios = []
    for _ in range(8):
        measured = qx.explain(engine, 4, 60).data["measured"]
        ratios.append(measured["steps_us"] / measured["run_us"])
        if abs(ratios[-1] - 1) < 0.1:
            return
    raise AssertionError(f"steps / run: {ratios}")
