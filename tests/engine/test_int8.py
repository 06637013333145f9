"""Engines whose linear layers multiply bytes."""

import pytest
import torch
from networks import batch, encoder

import qontext as qx
from qontext.dtypes import relative_rms
from qontext.errors import AccuracyError, ArgumentError
from qontext.quant.recipe import BY_ROW, IN_FLOATS, int8_share

# Bytes hold a number to half a part in 255 of the range of its row: a relative error of about one part in a hundred for
# what is spread like a normal distribution, in x and in the weight, over two layers.
INT8 = 0.03


@pytest.fixture(scope="module")
def model():
    return encoder()


@pytest.fixture(scope="module")
def want(model):
    return qx.build(model, tune=False).run(batch())


def steps(engine):
    return engine.compiled.programs["encode"].steps


def test_all_linear_layers_become_bytes_without_any_sample(model, want):
    lines = []
    engine = qx.build(model, precision="int8", log=lines.append)
    assert sum(s.op == "QuantLinear" for s in steps(engine)) == 9
    assert not any(s.op == "Linear" for s in steps(engine))
    layers = engine.compiled.quantised
    assert len(layers) == 9
    assert {layer.scale for layer in layers} == {BY_ROW}
    assert int8_share(layers) == 1.0
    assert "int8: 9 of 9 linear layers, 100.0% of their operations" in lines
    out = engine.run(batch())
    real = batch()["attention_mask"].bool()
    error = relative_rms(out["last_hidden_state"][real], want["last_hidden_state"][real])
    assert 1e-4 < error < INT8
    assert out["last_hidden_state"].dtype == torch.float32


def test_scales_stay_float32_and_the_rest_follows_the_processor(model, monkeypatch):
    for rest, dtype in (("bf16", "bfloat16"), ("fp32", "float32")):
        monkeypatch.setattr("qontext.engine.rest_of", lambda precision, device, rest=rest: rest)
        engine = qx.build(model, precision="int8", tune=False)
        for step in steps(engine):
            if step.op == "QuantLinear":
                assert step.call.inputs[2].dtype == "float32"
                assert step.call.inputs[0].dtype == dtype
                assert step.call.outputs[0].dtype == dtype


def test_layers_are_kept_by_module_name_and_pattern(model, want):
    engine = qx.build(model, precision="int8", tune=False, keep=["layer.1", "*linear_3"])
    layers = {layer.name: layer for layer in engine.compiled.quantised}
    kept = {name for name, layer in layers.items() if layer.kept}
    assert kept == {n for n, v in layers.items() if v.origin.startswith("layer.1") or n.endswith("linear_3")}
    assert len(kept) == 5
    assert {layers[n].kept for n in kept} <= {"'layer.1' was asked to stay", "'*linear_3' was asked to stay"}
    assert sum(s.op == "Linear" for s in steps(engine)) == len(kept)
    assert 0 < int8_share(engine.compiled.quantised) < 1


def test_what_keep_names_must_be_there_and_linear(model):
    with pytest.raises(ArgumentError, match=r"(?s)2 problems.*no layer is called 'nothing'.*'layer.9\*'"):
        qx.build(model, precision="int8", tune=False, keep=["nothing", "layer.9*", "layer.1"])
    norm = next(n.name for n in model.graph if n.op_type == "SkipLayerNorm")
    with pytest.raises(ArgumentError, match=f"'{norm}' names no linear layer, and nothing else becomes int8"):
        qx.build(model, precision="int8", tune=False, keep=[norm])


def test_a_saved_engine_gives_the_same(model, tmp_path):
    engine = qx.build(model, precision="int8", tune=False)
    engine.save(tmp_path / "int8.qx")
    again = qx.load(tmp_path / "int8.qx")
    assert again.settings == engine.settings
    assert again.compiled.quantised == engine.compiled.quantised
    for name, tensor in engine.run(batch()).items():
        assert torch.equal(again.run(batch())[name], tensor), name
    whole = (tmp_path / "int8.qx").stat().st_size
    qx.build(model, tune=False).save(tmp_path / "fp32.qx")
    assert whole < (tmp_path / "fp32.qx").stat().st_size


def test_packed_and_padded_batches_agree(model):
    engine = qx.build(model, precision="int8", tune=False)
    given = {k: v[:2] for k, v in batch().items()}
    padded = engine.run(given)["last_hidden_state"]
    alone = engine.run({k: v[1:, :8] for k, v in given.items()})["last_hidden_state"]
    torch.testing.assert_close(padded[1, :8], alone[0])


def test_an_empty_batch(model):
    engine = qx.build(model, precision="int8", tune=False)
    out = engine.run({"input_ids": torch.zeros(0, 7, dtype=torch.long)})
    assert out["last_hidden_state"].shape == (0, 7, 64)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_without_a_scale_are_refused(bad):
    model = encoder()
    model.graph.initializers["1.up"].const_value.raw[3, 5] = bad
    with pytest.raises(ArgumentError, match=r"weight '1\.up' holds 1 values that are NaN or infinite"):
        qx.build(model, precision="int8", tune=False)
    with pytest.raises(AccuracyError, match="holds NaN or infinity"):
        qx.build(model, precision="int8", tune=False, keep=["layer.1"])


def test_channels_of_zeros_and_constant_ones():
    model = encoder()
    model.graph.initializers["0.up"].const_value.raw[:7] = 0
    model.graph.initializers["0.out"].const_value.raw[:] = 0.25
    want = qx.build(model, tune=False).run(batch())["last_hidden_state"]
    got = qx.build(model, precision="int8", tune=False).run(batch())["last_hidden_state"]
    real = batch()["attention_mask"].bool()
    assert relative_rms(got[real], want[real]) < INT8


def test_fp8_needs_a_gpu(model):
    with pytest.raises(ArgumentError, match="device is 'cpu', which multiplies no 8-bit floats; use device='cuda'"):
        qx.build(model, precision="fp8")


def test_a_model_without_linear_layers_says_so():
    from qontext.graph.model import Model
    from qontext.ops.network import Network

    net = Network("plain")
    net.output(net.gelu(net.input("x", "float32", ("B", "S", 8))), "y")
    lines = []
    qx.build(Model("plain", net.graph, net.ledger(), {}), precision="int8", log=lines.append)
    assert "int8: 0 of 0 linear layers, 0.0% of their operations" in lines


def test_weights_alone(model, want, tmp_path):
    engine = qx.build(model, "int8", tune=False, quantisation=qx.QuantOptions("none"), keep=["layer.0.linear"])
    linear = [s for s in steps(engine) if s.op == "Linear"]
    assert not any(s.op == "QuantLinear" for s in steps(engine))
    assert sum(s.call.inputs[1].dtype == "int8" for s in linear) == 8
    assert {s.kernel for s in linear if s.call.inputs[1].dtype == "int8"} == {"torch.linear_int8_weight"}
    assert {layer.scale for layer in engine.compiled.quantised if not layer.kept} == {IN_FLOATS}
    real = batch()["attention_mask"].bool()
    error = relative_rms(engine.run(batch())["last_hidden_state"][real], want["last_hidden_state"][real])
    assert error < INT8 / 2
    engine.save(tmp_path / "weights.qx")
    assert torch.equal(qx.load(tmp_path / "weights.qx").run(batch())["logits"], engine.run(batch())["logits"])
