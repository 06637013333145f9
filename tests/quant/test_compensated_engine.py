"""Engines whose weights are rounded with compensation where samples are given."""

import sys
from pathlib import Path

import pytest
import torch

import qontext as qx
from qontext.calibration import moments as gathering
from qontext.quant import compensation

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from gpu_fake import fake_gpu
from networks import batch, encoder


@pytest.fixture(scope="module")
def model():
    return encoder()


@pytest.fixture(scope="module")
def batches():
    generator = torch.Generator().manual_seed(7)
    return [{"input_ids": torch.randint(0, 100, (16, 31), generator=generator)} for _ in range(2)]


def built(model, batches, precision="int8", device="cpu", **options):
    return qx.build(model, precision, device, tune=False, calibration=batches, quantisation=qx.QuantOptions(**options))


PRESETS = {
    "int8": {},
    "int8 static": {"activations": "tensor"},
    "int8 weights": {"activations": "none"},
    "int4 weights": {"activations": "none", "weight_bits": 4, "group": 32},
    "fp8": {"precision": "fp8", "device": "cuda"},
}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_way_to_hold_weights_takes_it(model, batches, preset, monkeypatch):
    if preset == "fp8":
        fake_gpu(monkeypatch)
    engine = built(model, batches, **PRESETS[preset])
    layers = engine.compiled.quantised
    deep = [layer for layer in layers if "pool" not in layer.name and layer.rounded is not None]
    assert len(deep) >= 8
    assert sum(layer.rounding == "compensated" for layer in deep) >= 6
    assert all(layer.rounded <= layer.nearest for layer in deep)
    plain = built(model, batches, **PRESETS[preset], compensate=False)
    assert all((layer.rounding, layer.nearest, layer.rounded) == ("", None, None) for layer in plain.compiled.quantised)
    assert engine.compiled.errors["last_hidden_state"] < plain.compiled.errors["last_hidden_state"]


def test_the_report_says_what_it_brought(model, batches, tmp_path):
    engine = built(model, batches)
    layer = next(layer for layer in engine.compiled.quantised if layer.rounding == "compensated")
    said = f"weight rounded compensated (its error {layer.rounded:.2e}, to the nearest {layer.nearest:.2e})"
    assert said in str(qx.explain(engine))
    engine.save(tmp_path / "engine.qx")
    again = qx.load(tmp_path / "engine.qx")
    assert again.compiled.quantised == engine.compiled.quantised
    assert said in str(qx.explain(again))


def test_one_sentence_is_too_little_and_the_report_says_so(model):
    engine = built(model, {"input_ids": torch.arange(9)[None]})
    said = {layer.rounding for layer in engine.compiled.quantised}
    assert said == {
        "to the nearest: the samples hold 8 tokens for it, at least 128 are wanted",
        "to the nearest: the samples hold 1 tokens for it, at least 128 are wanted",
    }


def test_without_samples_nothing_is_looked_at(model):
    layers = qx.build(model, "int8", tune=False).compiled.quantised
    assert {layer.rounding for layer in layers} == {""}


def test_samples_that_are_all_alike(model):
    engine = built(model, [{"input_ids": torch.full((16, 31), 3)}])
    assert all(torch.isfinite(t).all() for t in engine.run(batch()).values())


def test_a_build_that_is_tried_again_rounds_once(model, batches, monkeypatch):
    calls = []
    real = compensation.compensated
    monkeypatch.setattr(compensation, "compensated", lambda *given: calls.append(1) or real(*given))
    free = built(model, batches)
    once = len(calls)
    tight = built(model, batches, max_error=0.9 * free.compiled.errors["last_hidden_state"])
    assert any(layer.kept for layer in tight.compiled.quantised)
    assert len(calls) == 2 * once


def test_layers_that_share_a_weight_share_the_rounding(batches):
    model = encoder(layers=1, inner=64)
    one, other = [n for n in model.graph if n.op_type == "Linear"][1:3]
    other.replace_input_with(1, one.inputs[1])
    first, second = built(model, batches, smooth=False).compiled.quantised[1:3]
    assert first.rounding == "compensated"
    assert (first.nearest, first.rounded) == (second.nearest, second.rounded)


def test_few_rows_of_many_are_spread_evenly(model, batches, monkeypatch):
    monkeypatch.setattr(gathering, "MOST_ROWS", 301)
    floats = qx.build(model, tune=False)
    found = gathering.Watching(floats, batches).found()
    first = found["layer.0.linear"]
    assert first.rows + first.apart_rows == 301
    monkeypatch.setattr(gathering, "MOST_WORK", 100 * 128**2)
    found = gathering.Watching(floats, batches).found()
    counted = {name: m.rows + m.apart_rows for name, m in found.items() if name.startswith("layer.0.")}
    assert counted == {
        "layer.0.linear": 301, "layer.0.linear_1": 301, "layer.0.linear_2": 301, "layer.0.linear_3": 100
    }  # fmt: skip


def test_layers_beyond_the_memory_for_moments_are_rounded_to_the_nearest(model, batches, monkeypatch):
    monkeypatch.setattr(gathering, "MOST_BYTES", 4 * 64**2 * 2)
    layers = built(model, batches).compiled.quantised
    assert [bool(layer.rounding) for layer in layers][:4] == [True, True, False, False]
