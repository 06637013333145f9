"""An encoder in normal form, as the Hugging Face door emits it, fuses completely."""

import pytest
import torch
from apply import apply_to, equal
from encoder import encoder, encoder_feeds
from interpret import inferred, run_graph

from qontext.fusion.catalogue import fuse
from qontext.fusion.rule import Applied


@pytest.mark.parametrize("activation", ["none", "tanh"])
def test_everything_merges(activation: str) -> None:
    outcome = apply_to(encoder(2, activation).graph, encoder_feeds())
    assert outcome.counts == {"Cast": 1, "EmbedLayerNorm": 1, "Linear": 8, "QKVToContext": 2, "SkipLayerNorm": 4}
    assert equal(outcome)
    assert not outcome.ledger.refusals


def test_padding_mask_reaches_the_attention_as_key_mask() -> None:
    outcome = apply_to(encoder(1).graph, encoder_feeds())
    node = outcome.node("QKVToContext")
    assert node.inputs[2].name == "attention_mask"
    assert node.attributes["mask_means"].as_string() == "by_type"
    assert node.attributes["empty_row"].as_string() == "zeros"


def test_layers_share_one_cast_of_the_padding_mask() -> None:
    outcome = apply_to(encoder(2).graph, encoder_feeds())
    masks = {n.inputs[2] for n in outcome.graph if n.op_type == "QKVToContext"}
    assert [(m.producer().op_type, m.producer().inputs[0].name) for m in masks] == [("Cast", "attention_mask")]


def test_fuse_reports_what_each_rule_did() -> None:
    net = encoder(2)
    feeds = encoder_feeds()
    before = run_graph(net.graph, feeds)
    lines: list[str] = []
    done = fuse(net.graph, net.ledger(), inferred(net.graph), log=lines.append)
    assert all(isinstance(a, Applied) for a in done)
    counts = {a.rule: a.count for a in done}
    assert counts["qkv"] == 2
    assert counts["activation"] == 2
    assert counts["embed_layer_norm"] == 1
    assert counts["skip_layer_norm"] == 4
    assert any("3 operators (3 Linear) -> Linear" in line and "encoder.layer.0" in line for line in lines)
    assert any("-> Linear(gelu_erf)" in line for line in lines)
    assert torch.allclose(run_graph(net.graph, feeds)["last_hidden_state"], before["last_hidden_state"], atol=1e-5)


def test_fusing_twice_changes_nothing() -> None:
    net = encoder(1)
    ledger = net.ledger()
    fuse(net.graph, ledger, inferred(net.graph))
    nodes = [n.name for n in net.graph]
    again = fuse(net.graph, ledger, inferred(net.graph))
    assert [n.name for n in net.graph] == nodes
    assert sum(a.count for a in again) == 0
