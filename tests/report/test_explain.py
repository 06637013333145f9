"""Explain: complete accounting, reasons, times that add up."""

import json

import pytest
import torch
import transformers as tf

import qontext as qx


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    tf.BertForMaskedLM(tf.BertConfig(vocab_size=99, max_position_embeddings=64, **sizes)).save_pretrained(path)
    return qx.build(qx.import_model(path), tune=False)


def test_every_source_node_is_accounted_for_once(engine):
    data = qx.explain(engine, measure=False).data
    live = [i for step in data["steps"] for i in step["sources"]]
    assert len(live) == len(set(live))
    assert len(live) + data["folded"] + data["removed"] == data["source_nodes"]


def test_fusions_name_their_source_nodes_and_module_paths(engine):
    data = qx.explain(engine, measure=False).data
    rules = {f["rule"] for f in data["fusions"]}
    assert {"qkv", "activation", "skip_layer_norm", "embed_layer_norm"} <= rules
    attention = next(f for f in data["fusions"] if f["after"] == "QKVToContext")
    assert attention["before"] == ["Attention"]
    assert attention["sources"][0]["origin"].startswith("bert.encoder.layer.0.attention")


def test_times_shares_and_costs(engine):
    data = qx.explain(engine, batch=2, length=32).data
    assert data["measured"]["sizes"]["T"] == 64
    for step in data["steps"]:
        assert step["us"] > 0 and step["bytes"] > 0
    linear = next(s for s in data["steps"] if s["op"] == "Linear")
    assert linear["flops"] == pytest.approx(2 * 64 * 64 * 192, rel=0.1)
    assert sum(s["us"] for s in data["steps"]) == pytest.approx(data["measured"]["steps_us"])


def test_text_and_json(engine):
    report = qx.explain(engine, batch=1, length=8)
    json.dumps(report.data)
    text = str(report)
    for words in ("Operators", "Fused", "Padding removed", "Steps at B=1, S=8, T=8", "of the ceiling"):
        assert words in text


def test_a_loaded_engine_explains_the_same(engine, tmp_path):
    engine.save(tmp_path / "m.qx")
    a, b = (qx.explain(e, measure=False).data for e in (engine, qx.load(tmp_path / "m.qx")))
    assert a["fusions"] == b["fusions"] and a["refusals"] == b["refusals"]
    assert [s["name"] for s in a["steps"]] == [s["name"] for s in b["steps"]]


def test_refusals_carry_reason_and_count():
    from qontext.graph.ledger import Refusal
    from qontext.report.refusals import refusal_rows

    rows = refusal_rows(
        [
            Refusal("qkv", "a", (1,), "layer.0", "the weights differ", 2),
            Refusal("qkv", "b", (2,), "layer.1", "the weights differ", 1),
            Refusal("qkv", "c", (3,), "layer.2", "no projection", 0),
        ]
    )
    assert [(r["reason"], r["count"], r["conditions_held"]) for r in rows] == [
        ("the weights differ", 2, 2),
        ("no projection", 1, 0),
    ]
    assert rows[0]["places"] == ["layer.0", "layer.1"]
