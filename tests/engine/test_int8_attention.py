"""Engines whose attention multiplies bytes too."""

import pytest
import torch
from networks import batch, encoder

import qontext as qx
from qontext.dtypes import relative_rms
from qontext.errors import AccuracyError, ArgumentError
from qontext.graph.model import Model
from qontext.ops.catalogue import BY_NAME
from qontext.ops.network import Network
from qontext.quant.recipe import IN_BYTES

BOTH = qx.QuantOptions(quantise=("linear", "attention"))
INT8 = 0.03  # as tests/engine/test_int8.py has it


@pytest.fixture(scope="module")
def model():
    return encoder()


@pytest.fixture(scope="module")
def want(model):
    return qx.build(model, tune=False).run(batch())


def error_of(engine, want):
    real = batch()["attention_mask"].bool()
    return relative_rms(engine.run(batch())["last_hidden_state"][real], want["last_hidden_state"][real])


def attentions(engine):
    return [s for s in engine.compiled.programs["encode"].steps if s.op == "QuantQKVToContext"]


def rows(engine):
    return [layer for layer in engine.compiled.quantised if layer.name.endswith("qkv_to_context")]


def test_without_data(model, want, tmp_path):
    lines = []
    engine = qx.build(model, "int8", tune=False, quantisation=BOTH, log=lines.append)
    assert len(attentions(engine)) == 2 and {layer.scale for layer in rows(engine)} == {IN_BYTES}
    assert "int8: 2 of 2 attentions" in lines
    assert error_of(qx.build(model, "int8", tune=False), want) < error_of(engine, want) < INT8
    assert "layer.0 attention  int8   scale found at run time: for each token and head of Q" in str(qx.explain(engine))
    engine.save(tmp_path / "both.qx")
    assert torch.equal(qx.load(tmp_path / "both.qx").run(batch())["logits"], engine.run(batch())["logits"])


def test_static_scales_of_a_calibration(model, want):
    found = qx.calibrate(model, lambda: [batch(4, 17), batch(3, 9)], "min-max")
    engine = qx.build(model, "int8", tune=False, quantisation=BOTH, calibration=found)
    for step, layer in zip(attentions(engine), rows(engine), strict=True):
        scales = step.call.inputs[7].constant
        for part, scale in zip(("query", "key", "value"), scales, strict=True):
            held = found.layers[f"{layer.name}/{part}"]
            assert float(scale) == pytest.approx(max(-held.low, held.high) / 127)
        assert "min-max of 7 samples" in layer.scale
    assert error_of(engine, want) < INT8


@pytest.mark.slow
def test_errors_of_attention_are_measured_and_a_budget_keeps_what_costs_most(model):
    samples = [batch(4, 17), batch(3, 9)]
    free = qx.build(model, "int8", tune=False, quantisation=BOTH, calibration=samples)
    assert all(layer.error is not None and 1e-3 < layer.error < INT8 for layer in rows(free))
    most = max(free.compiled.errors.values()) * 0.85
    tight = qx.QuantOptions(quantise=("linear", "attention"), max_error=most)
    engine = qx.build(model, "int8", tune=False, quantisation=tight, calibration=samples)
    assert max(engine.compiled.errors.values()) <= most
    least = qx.QuantOptions(quantise=("linear", "attention"), max_error=1e-7)
    with pytest.raises(AccuracyError, match=r"with all 11 layers and attentions in .* the error is"):
        qx.build(model, "int8", tune=False, quantisation=least, calibration=samples)


def test_attention_is_kept_by_name(model):
    engine = qx.build(model, "int8", tune=False, quantisation=BOTH, keep=["layer.1.qkv_to_context"])
    assert [layer.kept for layer in rows(engine)] == ["", "'layer.1.qkv_to_context' was asked to stay"]
    with pytest.raises(ArgumentError, match="names no linear layer, and nothing else becomes int8"):
        qx.build(model, "int8", tune=False, keep=["layer.1.qkv_to_context"])


def test_in_a_network_of_ones_own():
    """The builder's method takes bytes with a scale, and gives bytes for a scale of the context."""
    net = Network("attention in bytes")
    given = net.input("qkv", "int8", ("B", "S", 3 * 4 * 16))
    scales = [net.constant(torch.tensor(value), name) for name, value in (("qkv_scale", 0.03), ("context_scale", 0.03))]
    settings = {"num_heads": 4, "layout": "B S (three N D)"}
    context = net.quant_qkv_to_context(given, qkv_scale=scales[0], context_scale=scales[1], **settings)
    net.output(context, "context")
    engine = qx.build(Model("bytes", net.graph, net.ledger(), {}), tune=False)
    qkv = torch.randint(-127, 128, (2, 9, 192), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    out = engine.run({"qkv": qkv})["context"]
    want = BY_NAME["QKVToContext"](qkv.float() * 0.03, **settings)
    assert out.dtype == torch.int8
    assert relative_rms(out * 0.03, want) < 0.05


def test_options_that_contradict_each_other(model):
    with pytest.raises(ArgumentError, match=r"quantise is \('attention',\), allowed"):
        qx.build(model, "int8", quantisation=qx.QuantOptions(quantise=("attention",)))
    with pytest.raises(ArgumentError, match="names 'attention', whose operands are activations"):
        qx.build(model, "int8", quantisation=qx.QuantOptions("none", quantise=("linear", "attention")))
