"""Engines whose linear layers hold weights of four bits."""

import pytest
import torch
from networks import batch, encoder

import qontext as qx
from qontext.dtypes import relative_rms
from qontext.errors import AccuracyError, ArgumentError
from qontext.quant.recipe import in_words

INT4 = 0.15  # sixteen levels a group in every layer: some 8 % a weight, which partly cancels


@pytest.fixture(scope="module")
def model():
    return encoder()


@pytest.fixture(scope="module")
def want(model):
    return qx.build(model, tune=False).run(batch())


def options(group, **more):
    return qx.QuantOptions("none", weight_bits=4, group=group, **more)


def error_of(engine, want):
    real = batch()["attention_mask"].bool()
    return relative_rms(engine.run(batch())["last_hidden_state"][real], want["last_hidden_state"][real])


def test_smaller_groups_are_more_exact(model, want, tmp_path):
    errors = []
    for group in (16, 64):
        engine = qx.build(model, "int8", tune=False, quantisation=options(group))
        steps = engine.compiled.programs["encode"].steps
        grouped = [s for s in steps if s.op == "GroupLinear"]
        assert len(grouped) == 9 and {s.kernel for s in grouped} == {"native.group_linear"}
        assert {layer.scale for layer in engine.compiled.quantised} == {in_words(group)}
        errors.append(error_of(engine, want))
    assert errors == sorted(errors)
    assert errors[0] > 0.01 and errors[-1] < INT4
    assert "int4 weights in groups of 64" in str(qx.explain(engine))
    engine.save(tmp_path / "int4.qx")
    assert torch.equal(qx.load(tmp_path / "int4.qx").run(batch())["logits"], engine.run(batch())["logits"])


def test_layers_whose_columns_are_no_whole_groups_stay(model):
    engine = qx.build(model, "int8", tune=False, quantisation=options(128))
    reasons = {layer.kept for layer in engine.compiled.quantised}
    assert "its weight has 64 columns, which are no whole groups of 128" in reasons


@pytest.mark.slow
def test_a_budget_keeps_the_layers_that_cost_most(model):
    samples = [batch(4, 17), batch(3, 9)]
    free = qx.build(model, "int8", tune=False, quantisation=options(32), calibration=samples)
    most = max(free.compiled.errors.values()) * 0.7
    engine = qx.build(model, "int8", tune=False, quantisation=options(32, max_error=most), calibration=samples)
    assert max(engine.compiled.errors.values()) <= most
    assert 0 < sum(bool(layer.kept) for layer in engine.compiled.quantised) < 9
    with pytest.raises(AccuracyError, match="cannot hold"):
        qx.build(model, "int8", tune=False, quantisation=options(32, max_error=1e-7), calibration=samples)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weight_bits": 3}, "weight_bits is 3, allowed: 4, 8"),
        ({"weight_bits": 4}, "weight_bits is 4, which goes with activations 'none' alone"),
        ({"group": 3}, "group is 3, allowed: even numbers from 2"),
    ],
)
def test_options_that_do_not_go(model, given, said):
    with pytest.raises(ArgumentError, match=said):
        qx.build(model, "int8", quantisation=qx.QuantOptions(**given))
