"""Padding removal as a graph pass: what it packs, and why it leaves something padded."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

import qontext as qx
from qontext.builder.compile import inferred, operators
from qontext.dtypes import BY_NAME, relative_rms
from qontext.graph.model import InputRule, Model
from qontext.ops.declare import Op, Param
from qontext.ops.network import Network
from qontext.packing.remove_padding import remove_padding

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from networks import batch, encoder


def _attention_network(mask_of, **attributes):
    """ids -> embedding -> attention, with the mask that `mask_of(net, attention_mask)` makes."""
    generator = torch.Generator().manual_seed(0)
    net = Network("test")
    ids, mask, at = (net.input(n, "int64", ("B", "S")) for n in ("input_ids", "attention_mask", "position_ids"))
    table = net.parameter("word", torch.randn(50, 32, generator=generator))
    x = net.embed_layer_norm(
        ids,
        table,
        at,
        net.parameter("at", torch.randn(64, 32, generator=generator)),
        weight=torch.ones(32),
        bias=torch.zeros(32),
    )
    qkv = net.linear(x, net.parameter("qkv", torch.randn(96, 32, generator=generator) * 0.2))
    y = net.qkv_to_context(qkv, mask=mask_of(net, mask), num_heads=4, layout="B S (three N D)", **attributes)
    net.output(net.gelu(y), "y")
    rules = {"attention_mask": InputRule("ones"), "position_ids": InputRule("arange")}
    return Model("test", net.graph, net.ledger(), rules, attention_mask="attention_mask")


TWICE = Op(
    name="Twice",
    domain="mine",
    doc="y = 2 x + shift.",
    inputs=(Param("x", "... E"), Param("shift", "E", optional=True)),
    outputs=(Param("y", "... E"),),
    reference=lambda x, shift: 2 * x if shift is None else 2 * x + shift,
)


def _with_plugin(plugin):
    """ids -> embedding -> the plugin of the user's -> linear."""
    generator = torch.Generator().manual_seed(0)
    net = Network("test", plugins=[plugin])
    ids, mask = (net.input(n, "int64", ("B", "S")) for n in ("input_ids", "attention_mask"))
    table = net.parameter("word", torch.randn(50, 32, generator=generator))
    x = net.embed_layer_norm(ids, table, weight=torch.ones(32), bias=torch.zeros(32))
    x = plugin(net.linear(x, torch.randn(24, 32, generator=generator)), torch.randn(24, generator=generator))
    net.output(net.gelu(x), "y")
    net.output(mask, "mask")
    rules = {"attention_mask": InputRule("ones")}
    return Model("test", net.graph, net.ledger(), rules, attention_mask="attention_mask")


@pytest.mark.parametrize("token_wise", [True, False])
def test_a_plugin_that_says_it_is_token_wise_runs_packed(token_wise):
    plugin = dataclasses.replace(TWICE, token_wise=token_wise)
    model = _with_plugin(plugin)
    engine = qx.build(model, plugins=[plugin], tune=False)
    (step,) = [s for s in engine.compiled.programs["encode"].steps if s.op == "Twice"]
    assert len(step.call.inputs[0].shape) == (2 if token_wise else 3)
    inputs = batch(vocabulary=50)
    inputs.pop("position_ids", None)
    real = inputs["attention_mask"].bool()
    found = engine.run(inputs)["y"]
    wanted = qx.build(model, plugins=[plugin], tune=False, packing=False).run(inputs)["y"]
    assert relative_rms(found[real], wanted[real]) < BY_NAME["float32"].tolerance
    assert not (token_wise and found[~real].any())


def test_a_plugin_that_refuses_packed_tokens_stays_padded():
    three = lambda operands, given: [] if len(operands[0].shape) == 3 else ["x needs 3 axes"]  # noqa: E731
    plugin = dataclasses.replace(TWICE, token_wise=True, check=three)
    model = _with_plugin(plugin)
    graph = model.graph.clone(allow_outer_scope_values=False)
    report = remove_padding(graph, inferred(graph, operators([plugin])), model.ledger, model.attention_mask)
    refused = [n for n in report.nodes if n.reason]
    assert [n.op for n in refused] == ["Twice"]
    assert "x needs 3 axes" in refused[0].reason
    model.ledger.check(graph)
    assert [n.op_type for n in graph if n.op_type in ("UnpackTokens", "Twice")] == ["UnpackTokens", "Twice"]


def _report(model):
    graph = model.graph.clone(allow_outer_scope_values=False)
    return graph, remove_padding(graph, inferred(graph, operators(())), model.ledger, model.attention_mask)


def test_everything_between_embedding_and_output_is_packed():
    model = encoder()
    graph, report = _report(model)
    kinds = [n.op_type for n in graph]
    assert kinds.count("PackIndex") == kinds.count("UnpackTokens") == 1
    assert kinds.count("FirstTokens") == 1
    assert "Cast" not in kinds
    assert report.packed == 16 and not [n for n in report.nodes if n.reason]
    assert {n.attributes["layout"].value for n in graph if n.op_type == "QKVToContext"} == {"T (three N D)"}
    model.ledger.check(graph)


@pytest.mark.parametrize(
    ("mask_of", "words"),
    [
        (lambda net, mask: None, "the model gives it no mask"),
        (lambda net, mask: net.parameter("m", torch.ones(1, 1, 1, 1, dtype=torch.bool)), "says more than which tokens"),
        (lambda net, mask: net.op("Not", net.op("Cast", mask, to=9)), "says more than which tokens"),
    ],
)
def test_attention_that_cannot_be_packed_says_why_and_stays_right(mask_of, words):
    model = _attention_network(mask_of)
    _, report = _report(model)
    refused = [n for n in report.nodes if n.reason]
    assert [n.op for n in refused] == ["QKVToContext"]
    assert words in refused[0].reason
    inputs = {"input_ids": torch.randint(0, 50, (2, 9))}
    a = qx.build(model, tune=False).run(inputs)["y"]
    b = qx.build(model, tune=False, packing=False).run(inputs)["y"]
    assert relative_rms(a, b) < BY_NAME["float32"].tolerance


@pytest.mark.parametrize("kind", ["full", "causal"])
def test_attention_kinds_survive_packing(kind):
    model = _attention_network(lambda net, mask: net.op("Cast", mask, to=9), kind=kind)
    inputs = batch(vocabulary=50)
    inputs["attention_mask"][2] = 1  # causal with holes counts positions differently, so no holes here
    a = qx.build(model, tune=False).run(inputs)["y"]
    b = qx.build(model, tune=False, packing=False).run(inputs)["y"]
    real = inputs["attention_mask"].bool()
    assert relative_rms(a[real], b[real]) < BY_NAME["float32"].tolerance


def test_a_model_without_mask_is_left_alone():
    model = encoder()
    model.attention_mask = None
    graph, report = _report(model)
    assert "no attention mask" in report.reason
    assert graph.num_nodes() == model.graph.num_nodes()
