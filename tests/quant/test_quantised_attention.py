"""Attention of models that were quantised before: PyTorch's fake quantisation, and ONNX Runtime's static tool."""

import warnings

import numpy as np
import onnxruntime as ort
import pytest
import torch

import qontext as qx

E, N = 48, 4
QUERY, KEY, VALUE, STEP = 0.034, 0.033, 0.0335, 1 / 127
fake, rows = torch.fake_quantize_per_tensor_affine, torch.fake_quantize_per_channel_affine


class Attention(torch.nn.Module):
    """Self-attention; with `quantisers`, what its products read is held in bytes as NVIDIA's toolkit exports it."""

    def __init__(self, quantisers: bool, scaled: str = "scores", middle: int = 0):
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.value = (torch.nn.Linear(E, E) for _ in range(3))
        self.quantisers, self.scaled, self.middle = quantisers, scaled, middle

    def projected(self, layer, x):
        weight = layer.weight
        if self.quantisers:
            scale = weight.detach().abs().amax(1) / 127
            weight = rows(weight, scale, torch.zeros(E, dtype=torch.int32), 0, -128, 127)
            x = fake(x, 0.06, 0, -128, 127)
        y = torch.nn.functional.linear(x, weight, layer.bias)
        return y.view(*y.shape[:2], N, E // N).transpose(1, 2)

    def held(self, x, scale, middle=0):
        return fake(x, scale, middle, -128, 127) if self.quantisers else x

    def forward(self, x, mask):
        query, key, value = (self.projected(layer, x) for layer in (self.query, self.key, self.value))
        root = (E // N) ** 0.5
        if self.scaled == "query":
            query = query / root
        query = self.held(query, QUERY / (root if self.scaled == "query" else 1), self.middle)
        scores = query @ self.held(key.transpose(-1, -2), KEY)
        if self.scaled == "scores":
            scores = scores / root
        probabilities = torch.softmax(scores + mask[:, None, None, :], -1)
        context = self.held(probabilities, STEP) @ self.held(value, VALUE)
        return context.transpose(1, 2).flatten(2)


def exported(module, path):
    free = {0: "b", 1: "s"}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (torch.randn(2, 7, E), torch.zeros(2, 7)), str(path), dynamo=False, opset_version=17,
            input_names=["x", "mask"], output_names=["y"], dynamic_axes={"x": free, "mask": free, "y": free},
        )  # fmt: skip


@pytest.fixture(scope="module")
def feeds():
    mask = np.zeros((3, 19), np.float32)
    mask[1, 11:] = mask[2, 1:] = -1e4
    return {"x": np.random.default_rng(0).standard_normal((3, 19, E)).astype(np.float32) * 2, "mask": mask}


def results(path, feeds):
    """(the engine, its result, ONNX Runtime's)."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    wanted = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    engine = qx.build(qx.import_model(path), tune=False)
    return engine, engine.run(feeds)["y"], wanted


def steps(engine):
    return [step.op for step in engine.compiled.programs["encode"].steps]


def refusals(engine):
    return [r.reason for r in engine.compiled.ledger.refusals if r.rule == "quantised_attention"]


@pytest.mark.parametrize("scaled", ["scores", "query"])
def test_fake_quantised_attention_is_one_projection_and_attention_over_bytes(tmp_path, feeds, scaled):
    exported(Attention(True, scaled), tmp_path / "fake.onnx")
    engine, got, wanted = results(tmp_path / "fake.onnx", feeds)
    assert steps(engine)[-2:] == ["QuantLinear", "QuantQKVToContext"] and "Softmax" not in steps(engine)
    attention = engine.compiled.programs["encode"].steps[-1].call
    assert attention.inputs[7].constant.tolist() == pytest.approx([QUERY, KEY, VALUE])
    assert attention.attributes["dq_probs"] == pytest.approx(STEP)
    assert np.abs(got - wanted).max() <= VALUE
    assert np.abs(got - wanted).mean() < 0.02 * VALUE


def test_static_models_of_onnx_runtime(tmp_path, feeds):
    """Its scores are held three times before the softmax: those roundings are left out."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            x = np.random.default_rng(1).standard_normal((4, 8, 40, E)).astype(np.float32) * 2.2
            self.left = iter([{"x": some, "mask": np.zeros((8, 40), np.float32)} for some in x])

        def get_next(self):
            return next(self.left, None)

    exported(Attention(False), tmp_path / "float.onnx")
    for symmetric in (True, False):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_static(
                str(tmp_path / "float.onnx"), str(tmp_path / "static.onnx"), Reader(),
                quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
                extra_options={"ActivationSymmetric": symmetric},
                op_types_to_quantize=["MatMul", "Softmax", "Div", "Transpose", "Reshape"],
            )  # fmt: skip
        engine, got, wanted = results(tmp_path / "static.onnx", feeds)
        if symmetric:
            assert "QuantQKVToContext" in steps(engine) and "Softmax" not in steps(engine)
            step = float(np.diff(np.unique(wanted)).min())  # of the result, which is held in bytes too
            apart = np.abs(got - wanted) / step
            assert apart.max() <= 2.01 and (apart > 1.01).mean() < 0.01
        else:
            assert "Softmax" in steps(engine)
            assert any("attention over bytes holds numbers evenly around 0" in reason for reason in refusals(engine))
            np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_what_bytes_cannot_stand_for_is_computed_as_it_is_written(tmp_path, feeds):
    exported(Attention(True, middle=3), tmp_path / "other.onnx")
    engine, got, wanted = results(tmp_path / "other.onnx", feeds)
    assert any("0 of the query is byte 131 of 256" in reason for reason in refusals(engine))
    assert "Softmax" in steps(engine)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
