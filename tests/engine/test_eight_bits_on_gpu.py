"""Encoders in fp8 and int8 as they are planned for a GPU; kernels are those of the host, the references above all."""

import pytest
import torch
from gpu_fake import FAKE, fake_gpu
from networks import batch, encoder

import qontext as qx
from qontext.builder import compile as compiling
from qontext.builder import engine_file
from qontext.calibration.guard import compare
from qontext.dtypes import relative_rms
from qontext.errors import ArgumentError, DeviceError
from qontext.ops.call import Device
from qontext.quant.recipe import BY_ROW

# 3 bits behind the point hold a number to 2.6 % on average, in x and in the weight, over two layers; bytes see int8.
LIMITS = {"fp8": 0.06, "int8": 0.03}
NAMES = {"fp8": "float8_e4m3", "int8": "int8"}


@pytest.fixture(scope="module")
def model():
    return encoder()


@pytest.fixture(scope="module")
def want(model):
    return qx.build(model, tune=False).run(batch())["last_hidden_state"]


@pytest.fixture
def gpu(monkeypatch):
    fake_gpu(monkeypatch)
    monkeypatch.setattr(compiling, "device_of", lambda name: FAKE)


def steps(engine):
    return [(s.op, [o.dtype for o in s.call.outputs if o]) for s in engine.compiled.programs["encode"].steps]


def error_of(engine, want):
    real = batch()["attention_mask"].bool()
    return relative_rms(engine.run(batch())["last_hidden_state"][real], want[real])


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_norms_write_eight_bits_without_any_sample(model, want, gpu, precision):
    engine = qx.build(model, precision, "cuda", tune=False)
    found = steps(engine)
    assert sum(op == "QuantLinear" for op, _ in found) == 9
    rows = ["float32"] * (2 if precision == "int8" else 1)
    assert found.count(("SkipLayerNorm", ["float16", NAMES[precision], *rows])) == 3
    assert ("QKVToContext", ["float16"]) in found  # no static scale is known
    assert 1e-4 < error_of(engine, want) < LIMITS[precision]
    layers = engine.compiled.quantised
    assert {layer.weights for layer in layers} == {NAMES[precision]}
    assert [layer.scale for layer in layers].count(BY_ROW) == 6


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_with_samples_every_operator_writes_what_the_next_product_reads(model, want, gpu, precision):
    lines = []
    engine = qx.build(model, precision, "cuda", tune=False, calibration=[batch()], log=lines.append)
    found = steps(engine)
    kind = NAMES[precision]
    assert found.count(("QKVToContext", [kind])) == 2
    assert found.count(("QuantLinear", [kind])) == 2  # those with a GELU
    assert "7 of them read eight bits that the operator in front has written" in lines
    assert error_of(engine, want) < LIMITS[precision]
    assert all(0 < layer.error < 2.5 * LIMITS[precision] for layer in engine.compiled.quantised)
    assert f"{precision}: 100.0% of the operations" in str(qx.explain(engine, measure=False))


BOTH = qx.QuantOptions(quantise=("linear", "attention"))


def test_attention_in_fp8_reads_and_writes_eight_bits(model, want, gpu, tmp_path, monkeypatch):
    lines = []
    settings = {"calibration": [batch()], "quantisation": BOTH, "log": lines.append}
    engine = qx.build(model, "fp8", "cuda", tune=False, **settings)
    found, kind = steps(engine), NAMES["fp8"]
    assert found.count(("QuantQKVToContext", [kind])) == 2
    assert found.count(("QuantLinear", [kind])) == 4  # those with a GELU, and the projections
    assert "fp8: 2 of 2 attentions" in lines
    assert 1e-4 < error_of(engine, want) < 1.5 * LIMITS["fp8"]
    rows = [layer for layer in engine.compiled.quantised if layer.what == "attention"]
    assert all(layer.scale.endswith(", written by the projection") and layer.weights == kind for layer in rows)
    assert all(0 < layer.error < 2.5 * LIMITS["fp8"] for layer in rows)
    monkeypatch.setattr(engine_file, "device_of", lambda name: FAKE)
    engine.save(tmp_path / "engine.qx")
    assert torch.equal(qx.load(tmp_path / "engine.qx").run(batch())["logits"], engine.run(batch())["logits"])


def test_attention_in_fp8_without_samples_finds_its_scales(model, want, gpu):
    engine = qx.build(model, "fp8", "cuda", tune=False, quantisation=BOTH)
    assert steps(engine).count(("QuantQKVToContext", ["float16"])) == 2
    assert error_of(engine, want) < 1.5 * LIMITS["fp8"]


@pytest.mark.slow
def test_attention_that_costs_too_much_stays_in_floats(model, gpu):
    free = qx.build(model, "fp8", "cuda", tune=False, calibration=[batch()], quantisation=BOTH)
    most = max(free.compiled.errors.values()) * 0.9
    tight = qx.QuantOptions(quantise=BOTH.quantise, max_error=most)
    engine = qx.build(model, "fp8", "cuda", tune=False, calibration=[batch()], quantisation=tight)
    assert any(layer.kept for layer in engine.compiled.quantised)
    assert max(engine.compiled.errors.values()) <= most


def test_little_lies_outside_static_ranges(model, gpu):
    """The factors of columns have moved to the operators in front, and count there."""
    engine = qx.build(model, "int8", "cuda", tune=False, calibration=[batch()])
    found = compare(qx.build(model, tune=False), engine, [batch()])
    assert len(found.cut) == 4
    assert max(found.cut.values()) < 1e-3  # the range is the percentile 99.99


def test_a_file_holds_what_was_built(model, gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_file, "device_of", lambda name: FAKE)
    engine = qx.build(model, "fp8", "cuda", tune=False, calibration=[batch()])
    engine.save(tmp_path / "engine.qx")
    again = qx.load(tmp_path / "engine.qx")
    assert torch.equal(again.run(batch())["logits"], engine.run(batch())["logits"])


def test_a_budget_keeps_layers_in_floats(model, gpu):
    engine = qx.build(
        model,
        "fp8",
        "cuda",
        tune=False,
        calibration=[batch()],
        quantisation=qx.QuantOptions(max_error=0.05),
    )
    kept = [layer for layer in engine.compiled.quantised if layer.kept]
    assert 0 < len(kept) < 9
    assert max(engine.compiled.errors.values()) <= 0.05


def test_a_gpu_without_8_bit_floats_says_so(model, gpu, monkeypatch):
    ampere = Device("cuda", frozenset({"sm_86"}), "an Ampere", "cpu")
    monkeypatch.setattr(compiling, "device_of", lambda name: ampere)
    with pytest.raises(DeviceError, match=r"an Ampere has compute capability 8.6, products of 8-bit floats need 8.9"):
        qx.build(model, "fp8", "cuda")


def test_weights_alone_run_on_the_host(model, gpu):
    with pytest.raises(ArgumentError, match="weights alone run on the CPU"):
        qx.build(model, "fp8", "cuda", quantisation=qx.QuantOptions("none"))
