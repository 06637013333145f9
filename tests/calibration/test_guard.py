"""Guard rails: what an int8 engine must not give, and the budget of its error."""

import pytest
import torch

import qontext as qx
from qontext.calibration.cache import Calibration, LayerRange, model_hash
from qontext.calibration.guard import compare, sensitivity
from qontext.errors import AccuracyError, ArgumentError
from qontext.quant.recipe import int8_share

Q = qx.QuantOptions


@pytest.fixture
def outliers(model):
    """One inner feature of the second layer is a thousand times the others: bytes of a whole row lose the rest."""
    for name in ("1.up", "1.up.bias"):
        model.graph.initializers[name].const_value.raw[17] *= 3000
    model.graph.initializers["1.down"].const_value.raw[:, 17] /= 3000
    return model


def test_errors_of_outputs_and_layers_are_reported(model, batches):
    lines = []
    engine = qx.build(model, "int8", tune=False, calibration=batches, log=lines.append)
    assert all(0 < layer.error < 0.1 for layer in engine.compiled.quantised)
    assert set(engine.compiled.errors) == {"last_hidden_state", "logits"}
    assert any(line.startswith("int8 against float on 7 sequences: error 0.0") for line in lines)
    text = str(qx.explain(engine, measure=False))
    assert "int8: 100.0% of the operations of linear layers" in text
    assert "scale found for each token at run time" in text and "x the median" in text


def test_smoothing_takes_outliers_from_rows(outliers, batches):
    rough = qx.build(outliers, "int8", tune=False, calibration=batches, quantisation=Q(smooth=False))
    smooth = qx.build(outliers, "int8", tune=False, calibration=batches)
    assert max(smooth.compiled.errors.values()) < max(rough.compiled.errors.values()) / 2
    layer = next(v for v in smooth.compiled.quantised if v.name == "layer.1.linear_3")
    assert layer.smoothed and layer.outliers > 100


def test_the_worst_layers_are_kept_until_the_budget_holds(outliers, batches):
    rough = qx.build(outliers, "int8", tune=False, calibration=batches, quantisation=Q(smooth=False))
    budget = max(rough.compiled.errors.values()) / 3
    engine = qx.build(outliers, "int8", tune=False, calibration=batches, quantisation=Q(smooth=False, max_error=budget))
    kept = {v.name: v.kept for v in engine.compiled.quantised if v.kept}
    assert list(kept) == ["layer.1.linear_3"]
    assert kept["layer.1.linear_3"].startswith("alone it moves the results by ")
    assert max(engine.compiled.errors.values()) <= budget
    assert int8_share(engine.compiled.quantised) < 1
    assert "kept: alone it moves" in str(qx.explain(engine, measure=False))


def test_sensitivity_is_the_error_of_one_layer_alone(outliers, batches):
    floats = qx.build(outliers, tune=False)
    rough = qx.build(outliers, "int8", tune=False)
    costs = sensitivity(floats, rough, batches[0])
    assert max(costs, key=costs.get) == "layer.1.linear_3"
    others = [name for name in costs if name != "layer.1.linear_3"]
    alone = qx.build(outliers, "int8", tune=False, keep=others)
    assert compare(floats, alone, batches[:1]).error == pytest.approx(costs["layer.1.linear_3"], rel=0.1)


def test_a_budget_that_cannot_hold(model, batches):
    with pytest.raises(AccuracyError, match=r"max_error 1e-09 cannot hold: with all 9 linear layers in"):
        qx.build(model, "int8", tune=False, calibration=batches, quantisation=Q(max_error=1e-9))


def false_ranges(model, batches, high):
    """A cache of the right model with one range for all layers."""
    names = qx.calibrate(model, lambda: batches, smooth=False).layers
    return Calibration(model_hash(model), "min-max", 99.99, 1, {n: LayerRange(-high, high) for n in names})


def test_scales_that_cut_what_layers_read_are_an_error(model, batches):
    engine = qx.build(model, "int8", tune=False, calibration=false_ranges(model, batches, 0.1))
    floats = qx.build(model, tune=False)
    with pytest.raises(AccuracyError, match="is saturated"):
        compare(floats, engine, batches)


def test_scales_that_make_everything_zero_are_an_error(model, batches):
    with pytest.raises(AccuracyError, match="output 'logits' is zero everywhere"):
        qx.build(model, "int8", tune=False, calibration=false_ranges(model, batches, 1e6))


def test_zeros_are_an_error_without_any_sample(model):
    for value in model.graph.initializers.values():
        if value.const_value.raw.is_floating_point():
            value.const_value.raw.zero_()
    with pytest.raises(AccuracyError, match="output 'logits' is zero everywhere"):
        qx.build(model, "int8", tune=False)


def test_nan_is_an_error_without_any_sample(model):
    model.graph.initializers["1.norm2.bias"].const_value.raw[3] = float("nan")
    with pytest.raises(AccuracyError, match="output 'last_hidden_state' holds NaN or infinity"):
        qx.build(model, "int8", tune=False)


def test_options_that_contradict_each_other(model, batches):
    with pytest.raises(ArgumentError, match=r"(?s)3 problems.*activations is 'row'.*max_error is -1.*needs samples"):
        qx.build(model, "int8", quantisation=Q("row", max_error=-1))
    with pytest.raises(ArgumentError, match="no calibration to take static scales from"):
        qx.build(model, "int8", quantisation=Q("tensor"))
    with pytest.raises(ArgumentError, match="goes with precision 'int8' or 'fp8', the precision is 'bf16'"):
        qx.build(model, "bf16", quantisation=Q())
    with pytest.raises(ArgumentError, match="goes with precision 'int8'"):
        qx.build(model, "fp32", calibration="cache.json")


def test_what_was_found_is_saved(model, batches, tmp_path):
    engine = qx.build(model, "int8", tune=False, calibration=batches, keep=["layer.0"])
    engine.save(tmp_path / "m.qx")
    again = qx.load(tmp_path / "m.qx")
    assert again.compiled.errors == engine.compiled.errors
    assert again.compiled.quantised == engine.compiled.quantised
    for name, value in engine.run(batches[0]).items():
        assert torch.equal(again.run(batches[0])[name], value)
