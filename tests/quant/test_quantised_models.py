"""Models that were quantised before: ONNX Runtime's static tool, and PyTorch's fake quantisation."""

import warnings

import numpy as np
import onnxruntime as ort
import pytest
import torch

import qontext as qx
from qontext.ops.quant_linear.levels import levels_of

TYPES = ("QUInt8", "QInt8")


class Feed(torch.nn.Module):
    """Two layers with what follows them; with `quantisers`, each input and weight is fake-quantised."""

    def __init__(self, quantisers: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = torch.nn.Linear(48, 96), torch.nn.Linear(96, 33, bias=False)
        self.quantisers = quantisers

    def forward(self, x):
        if not self.quantisers:
            return self.down(torch.relu(self.up(x)))
        fake, rows = torch.fake_quantize_per_tensor_affine, torch.fake_quantize_per_channel_affine

        def weight(layer):
            scale = layer.weight.detach().abs().amax(1) / 127
            return rows(layer.weight, scale, torch.zeros(len(scale), dtype=torch.int32), 0, -128, 127)

        y = torch.nn.functional.linear(fake(x, 0.03, 121, 0, 255), weight(self.up), self.up.bias)
        return torch.nn.functional.linear(fake(torch.relu(y), 0.011, 0, 0, 255), weight(self.down))


def exported(module, path):
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (torch.randn(4, 48),), str(path), dynamo=False, opset_version=17,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        )  # fmt: skip


def in_onnx_runtime(path, x):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def operators(engine):
    return [s.op for s in engine.compiled.programs["encode"].steps]


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).standard_normal((37, 48)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "float.onnx"
    exported(Feed(), path)
    return path


@pytest.mark.parametrize("activations", TYPES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_static_models_run_the_same_steps(plain, tmp_path, x, activations, per_channel):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            generator = np.random.default_rng(1)
            self.left = iter([{"x": generator.standard_normal((8, 48)).astype(np.float32)} for _ in range(4)])

        def get_next(self):
            return next(self.left, None)

    target = tmp_path / "static.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(
            str(plain), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=per_channel,
            activation_type=getattr(QuantType, activations), weight_type=QuantType.QInt8,
        )  # fmt: skip
    engine = qx.build(qx.import_model(target), tune=False)
    assert operators(engine).count("QuantLinear") == 2 and "Linear" not in operators(engine)
    wanted = in_onnx_runtime(target, x)
    step = float(np.diff(np.unique(wanted)).min())  # of the result, which is quantised too
    assert np.abs(engine.run({"x": x})["y"] - wanted).max() <= 1.01 * step


def test_fake_quantised_modules_run_the_same_steps(tmp_path, x):
    exported(Feed(quantisers=True), tmp_path / "fake.onnx")
    engine = qx.build(qx.import_model(tmp_path / "fake.onnx"), tune=False)
    assert operators(engine) == ["QuantLinear", "QuantLinear"]
    with torch.no_grad():
        wanted = Feed(quantisers=True)(torch.from_numpy(x)).numpy()
    got = engine.run({"x": x})["y"]
    assert np.abs(got - wanted).max() < 0.011 * 2 * np.abs(Feed().down.weight.detach().numpy()).max()
    assert np.abs(got - wanted).mean() < 1e-4 * np.abs(wanted).mean()
    again = qx.build(qx.import_model(tmp_path / "fake.onnx"), "int8", tune=False)
    assert {layer.scale for layer in again.compiled.quantised} == {"of the imported model"}


def test_weights_that_were_never_quantised_stay_floats(tmp_path, x):
    class Half(Feed):
        def forward(self, x):
            return self.up(torch.fake_quantize_per_tensor_affine(x, 0.03, 121, 0, 255))

    exported(Half(), tmp_path / "half.onnx")
    engine = qx.build(qx.import_model(tmp_path / "half.onnx"), tune=False)
    assert operators(engine) == ["QuantizeLinear", "DequantizeLinear", "Linear"]
    reasons = [r.reason for r in engine.compiled.ledger.refusals if r.rule == "quantised"]
    assert reasons == ["the weight does not lie on 256 evenly spaced levels a row with 0 in them"]
    np.testing.assert_allclose(engine.run({"x": x})["y"], in_onnx_runtime(tmp_path / "half.onnx", x), atol=1e-5)


def test_levels_are_found_exactly():
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((5, 768), (3, 40), (4, 1)):
        levels = torch.randint(-128, 128, (rows, columns), generator=generator)
        scale = (
            torch.rand(rows, generator=generator) * 10.0 ** torch.randint(-6, 3, (rows,), generator=generator) + 1e-7
        )
        weight = levels.float() * scale[:, None]
        found = levels_of(weight)
        assert found is not None
        torch.testing.assert_close(found[0].float() * found[1][:, None], weight, rtol=1e-5, atol=0)
    sparse = torch.tensor([[0.0, 3, 5, -7], [0, 0, 0, 0], [4, 4, 4, 4]]) * 0.37
    values, scale = levels_of(sparse)
    torch.testing.assert_close(values.float() * scale[:, None], sparse)
    assert scale.min() > 0
    assert levels_of(torch.randn(3, 64, generator=generator)) is None
    assert levels_of(torch.arange(-200.0, 200.0)[None]) is None
