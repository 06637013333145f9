"""Calibration and its cache, and engines built with static scales."""

import json

import numpy as np
import pytest
import torch

import qontext as qx
from qontext.calibration.cache import Calibration, LayerRange, model_hash
from qontext.dtypes import relative_rms
from qontext.errors import ArgumentError, CalibrationError
from qontext.quant.recipe import BY_ROW


def fail():
    raise AssertionError("the data was read")


@pytest.mark.parametrize("smooth", [True, False])
def test_ranges_hold_what_the_layers_read(model, batches, smooth):
    seen = []
    found = qx.calibrate(
        model, lambda: batches, "min-max", smooth=smooth, progress=lambda done, of: seen.append((done, of))
    )
    attention = [name for name in found.layers if name.endswith(("/query", "/key", "/value"))]
    assert found.samples == 7 and len(found.layers) == 9 + len(attention) and len(attention) == 3 * 2
    assert seen[-1] == (7 * (1 + smooth),) * 2
    assert all(r.low <= 0 <= r.high and r.high > r.low for r in found.layers.values())
    assert any(r.smoothing for r in found.layers.values()) <= smooth
    if smooth:
        return
    read = {}
    engine = qx.build(model, tune=False)

    def tap(step, outputs):
        if step.name == "layer.0.linear_2":  # what the next layer reads
            read["y"] = outputs[0].clone()

    lows, highs = [], []
    for batch in batches:
        engine.run(batch, tap)
        lows.append(float(read["y"].min()))
        highs.append(float(read["y"].max()))
    layer = found.layers["layer.0.linear_3"]
    assert (layer.low, layer.high) == (min(lows), max(highs))


def test_an_engine_of_static_scales(model, batches):
    found = qx.calibrate(model, lambda: batches)
    engine = qx.build(model, "int8", tune=False, calibration=found)
    layers = engine.compiled.quantised
    assert all("percentile 99.99 of 7 samples" in layer.scale for layer in layers)
    steps = [s for s in engine.compiled.programs["encode"].steps if s.op == "QuantLinear"]
    assert all(s.call.inputs[5] is not None and s.call.inputs[6] is not None for s in steps)
    want = qx.build(model, tune=False).run(batches[0])["last_hidden_state"]
    real = batches[0]["attention_mask"].bool()
    assert relative_rms(engine.run(batches[0])["last_hidden_state"][real], want[real]) < 0.05
    by_token = qx.build(model, "int8", tune=False, calibration=found, quantisation=qx.QuantOptions("token"))
    assert {layer.scale for layer in by_token.compiled.quantised} == {BY_ROW}


def test_a_second_run_reads_the_cache_and_no_data(model, batches, tmp_path):
    path = tmp_path / "cache.json"
    first = qx.calibrate(model, lambda: iter(batches), cache=path)
    assert qx.calibrate(model, fail, cache=path) == first
    assert json.loads(path.read_text())["method"] == "percentile"
    engine = qx.build(model, "int8", tune=False, calibration=path)
    assert all("percentile" in layer.scale for layer in engine.compiled.quantised)


def test_a_cache_of_another_model_or_method_is_refused(model, batches, tmp_path):
    path = tmp_path / "cache.json"
    qx.calibrate(model, lambda: batches, cache=path)
    with pytest.raises(CalibrationError, match=r"asked for by entropy, but it was made by percentile 99\.99 of 7"):
        qx.calibrate(model, fail, "entropy", cache=path)
    with pytest.raises(CalibrationError, match=r"asked for by percentile 99\.9, but it was made by percentile 99\.99"):
        qx.calibrate(model, fail, percentile=99.9, cache=path)
    model.graph.initializers["0.up"].const_value.raw[0, 0] += 1
    with pytest.raises(CalibrationError, match="belongs to another model"):
        qx.calibrate(model, fail, cache=path)
    with pytest.raises(CalibrationError, match="belongs to another model"):
        qx.build(model, "int8", tune=False, calibration=path)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"what": "qontext calibration", "version": 2}', "\x00", "null"], ids=repr
)
def test_damaged_caches_are_refused(model, tmp_path, text):
    path = tmp_path / "cache.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match="is no calibration that this qontext reads"):
        qx.calibrate(model, fail, cache=path)
    with pytest.raises(CalibrationError, match="cannot read the calibration"):
        qx.build(model, "int8", calibration=tmp_path / "nothing.json")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_caches_with_numbers_that_are_none_are_refused(model, tmp_path, bad):
    path = tmp_path / "cache.json"
    Calibration(model_hash(model), "min-max", 99.99, 1, {"layer.0.linear": LayerRange(0.0, bad)}).save(path)
    with pytest.raises(CalibrationError, match="not finite"):
        Calibration.load(path)


def test_no_samples_and_samples_that_are_none(model):
    for nothing in ([], iter(()), {"input_ids": torch.zeros(0, 5, dtype=torch.long)}):
        with pytest.raises(CalibrationError, match="the data is empty"):
            qx.calibrate(model, lambda nothing=nothing: nothing)
    with pytest.raises(CalibrationError, match="a batch is a list"):
        qx.calibrate(model, lambda: [[1, 2]])
    with pytest.raises(CalibrationError, match="batch 0 holds NaN or infinity in 'x'"):
        qx.calibrate(model, lambda: [{"x": np.array([[1.0, np.nan]])}])


def test_data_that_the_float_model_fails_on(model, batches):
    model.graph.initializers["0.up.bias"].const_value.raw[3] = float("inf")
    with pytest.raises(CalibrationError, match=r"layer 'layer\.0\.linear_3' reads NaN or infinity on the samples"):
        qx.calibrate(model, lambda: batches)


def test_one_sample_and_constant_samples_give_finite_results(model):
    for ids in (torch.tensor([[5]]), torch.full((6, 8), 7)):
        found = qx.calibrate(model, lambda ids=ids: {"input_ids": ids})
        engine = qx.build(model, "int8", tune=False, calibration=found)
        for value in engine.run({"input_ids": ids}).values():
            assert torch.isfinite(value).all()


def test_arguments_that_do_not_exist(model, batches):
    with pytest.raises(ArgumentError, match=r"(?s)2 problems.*method is 'best'.*percentile is 30"):
        qx.calibrate(model, fail, "best", 30.0)
    with pytest.raises(ArgumentError, match="count is 0"):
        qx.calibrate(model, fail, count=0)
    assert qx.calibrate(model, lambda: batches, count=4, smooth=False).samples == 4
