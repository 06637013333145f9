"""Layers that stay in float32 because a half cannot hold their results, or because they were asked to."""

import pytest
import torch
from networks import batch, encoder

import qontext as qx
from qontext.dtypes import BY_NAME, relative_rms
from qontext.errors import ArgumentError


@pytest.fixture(scope="module")
def model():
    """The second layer's inner activations reach millions, which the projection behind them takes back."""
    made = encoder()
    weights = made.graph.initializers
    for name, factor in (("1.up", 1e6), ("1.up.bias", 1e6), ("1.down", 1e-6)):
        tensor = weights[name].const_value.raw
        tensor.mul_(factor)
    return made


@pytest.fixture(scope="module")
def want(model):
    return qx.build(model, tune=False).run(batch())


def dtypes(engine):
    steps = engine.compiled.programs["encode"].steps
    return {s.name: s.call.outputs[0].dtype for s in steps}


def test_without_a_sample_the_half_overflows(model):
    out = qx.build(model, precision="fp16", tune=False).run(batch())["last_hidden_state"]
    assert not torch.isfinite(out).all()


def test_a_sample_finds_the_layers_that_overflow(model, want):
    lines = []
    engine = qx.build(model, precision="fp16", tune=False, calibration=batch(), log=lines.append)
    kept = engine.compiled.kept
    assert len(kept) == 2, kept
    reasons = sorted(kept.values())
    assert reasons[0].startswith("reaches ") and reasons[0].endswith("fp16 ends at 6.55e+04")
    assert reasons[1] == "reads what such a layer gives"
    assert sum(line.startswith("stays in float32: ") for line in lines) == 2
    found = dtypes(engine)
    wide = [name for name, dtype in found.items() if dtype == "float32" and not name.startswith("precision/")]
    assert set(kept) == set(wide) - {"input_ids"}
    got = engine.run(batch())
    real = batch()["attention_mask"].bool()
    error = relative_rms(got["last_hidden_state"][real], want["last_hidden_state"][real])
    assert error < 2 * BY_NAME["float16"].tolerance  # four layer norms and the products between them


def test_a_model_that_fits_keeps_nothing():
    engine = qx.build(encoder(), precision="fp16", tune=False, calibration=[batch(), batch(2, 9)])
    assert engine.compiled.kept == {}
    assert set(dtypes(engine).values()) <= {"float16", "int64", "bool", "float32"}


def test_layers_are_kept_by_module_and_by_node(model, want):
    by_module = qx.build(model, precision="bf16", tune=False, keep=["layer.1"])
    found = dtypes(by_module)
    inside = {s.name for s in by_module.compiled.programs["encode"].steps if s.origin.startswith("layer.1")}
    assert len(inside) == 7
    assert {found[name] for name in inside} == {"float32"}
    assert "bfloat16" in found.values()
    one = next(iter(inside))
    by_node = qx.build(model, precision="bf16", tune=False, keep=[one])
    assert by_node.compiled.kept[one] == f"{one!r} was asked to stay"
    got = by_module.run(batch())["logits"][:2]
    assert relative_rms(got, want["logits"][:2]) < 2 * BY_NAME["bfloat16"].tolerance


def test_everything_kept_is_float32(model, want):
    names = [s.name for s in qx.build(model, tune=False).compiled.programs["encode"].steps]
    known = [n for n in names if not n.startswith("precision/")]
    engine = qx.build(model, precision="fp16", tune=False, keep=known)
    assert relative_rms(engine.run(batch())["logits"], want["logits"]) < BY_NAME["float32"].tolerance


def test_unknown_layers_are_named(model):
    with pytest.raises(ArgumentError, match=r"(?s)2 problems.*no layer is called 'nothing'.*'lay'"):
        qx.build(model, precision="fp16", tune=False, keep=["nothing", "lay", "layer.1"])


def test_what_was_kept_is_saved_and_explained(model, tmp_path):
    engine = qx.build(model, precision="fp16", tune=False, calibration=batch())
    engine.save(tmp_path / "m.qx")
    loaded = qx.load(tmp_path / "m.qx")
    assert loaded.compiled.kept == engine.compiled.kept
    assert loaded.settings == engine.settings
    for found in (engine, loaded):
        report = qx.explain(found, measure=False)
        rows = [s for s in report.data["steps"] if s["kept"]]
        assert [r["name"] for r in rows] == list(engine.compiled.kept)
        assert "Kept in float32" in str(report) and "fp16 ends at" in str(report)
