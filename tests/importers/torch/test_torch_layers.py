"""torch.nn's own attention and encoder layers, through the torch door and as traced ONNX files."""

import io
import warnings
from collections.abc import Callable

import onnx
import pytest
import torch
from torch import nn

import qontext as qx
from qontext.dtypes import by_name, relative_rms
from qontext.graph.model import Model
from qontext.importers.onnx_model import import_onnx
from qontext.importers.torch_module import import_module

TOLERANCE = by_name("float32").tolerance
BLOCK = ["Linear", "QKVToContext", "Linear"]
FEED_FORWARD = ["Linear", "Linear"]


class SelfAttention(nn.Module):
    """`nn.MultiheadAttention` of one value with itself; with `padded`, a mask that is True at padding."""

    def __init__(self, batch_first: bool, weights: bool = False) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(24, 3, batch_first=batch_first)
        self.weights = weights

    def forward(self, x: torch.Tensor, padded: torch.Tensor | None = None) -> object:
        context, weights = self.inner(x, x, x, key_padding_mask=padded, need_weights=self.weights)
        return (context, weights) if self.weights else context


class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(24, 3, batch_first=True)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        return self.inner(x, memory, memory, need_weights=False)[0]


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def check(module: nn.Module, model: Model, inputs: dict[str, torch.Tensor]) -> list[str]:
    """The steps of the engine, whose outputs are right."""
    engine = qx.build(model, tune=False)
    with torch.no_grad():
        right = module(*inputs.values())
    found = list(engine.run(inputs).values())
    for ours, theirs in zip(found, right if isinstance(right, tuple) else (right,), strict=True):
        assert relative_rms(ours, theirs) <= TOLERANCE
    return [step.op for step in engine.compiled.programs["encode"].steps]


def traced(module: nn.Module, inputs: dict[str, torch.Tensor], axes: dict[int, str]) -> Model:
    """The TorchScript exporter's file of opset 14, every input with the same open axes."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(inputs.values()), file, dynamo=False, opset_version=14, input_names=list(inputs),
            dynamic_axes=dict.fromkeys(inputs, axes),
        )  # fmt: skip
    return import_onnx(onnx.load_from_string(file.getvalue()))


@pytest.mark.parametrize("batch_first", [True, False])
def test_multi_head_attention_is_three_steps(batch_first: bool) -> None:
    module = seeded(lambda: SelfAttention(batch_first))
    names = {0: "B", 1: "S"} if batch_first else {0: "S", 1: "B"}
    model = import_module(module, (random(2, 5, 24),), dynamic_shapes={"x": names})
    assert check(module, model, {"x": random(3, 7, 24)}) == BLOCK


def test_a_padding_mask_that_is_true_at_padding_needs_no_step() -> None:
    module = seeded(lambda: SelfAttention(True))
    model = import_module(module, (random(2, 5, 24), torch.zeros(2, 5, dtype=torch.bool)))
    padded = torch.arange(7) >= torch.tensor([7, 3, 5])[:, None]
    assert check(module, model, {"x": random(3, 7, 24), "padded": padded}) == BLOCK


def test_cross_attention_is_one_attention() -> None:
    module = seeded(CrossAttention)
    shapes = {"x": {0: "B", 1: "S"}, "memory": {0: "B", 1: "L"}}
    model = import_module(module, (random(2, 5, 24), random(2, 4, 24)), dynamic_shapes=shapes)
    steps = check(module, model, {"x": random(3, 7, 24), "memory": random(3, 6, 24)})
    assert steps.count("Attention") == 1
    assert "Softmax" not in steps


@pytest.mark.parametrize("batch_first", [True, False])
def test_weights_that_are_wanted_too(batch_first: bool) -> None:
    """The probabilities are an output, so attention stays in parts, and the ledger says why."""
    module = seeded(lambda: SelfAttention(batch_first, weights=True))
    names = {0: "B", 1: "S"} if batch_first else {0: "S", 1: "B"}
    model = import_module(module, (random(2, 5, 24),), dynamic_shapes={"x": names})
    assert "Softmax" in check(module, model, {"x": random(3, 7, 24)})


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer(norm_first: bool, activation: str) -> None:
    def make() -> nn.Module:
        return nn.TransformerEncoderLayer(24, 3, 40, batch_first=True, norm_first=norm_first, activation=activation)

    module = seeded(make)
    steps = check(module, import_module(module, (random(2, 5, 24),)), {"src": random(3, 7, 24)})
    if norm_first:
        assert steps == ["LayerNorm", *BLOCK, "SkipLayerNorm", *FEED_FORWARD, "Add"]
    else:
        assert steps == [*BLOCK, "SkipLayerNorm", *FEED_FORWARD, "SkipLayerNorm"]


def test_encoder_of_two_layers() -> None:
    module = seeded(lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 3, 40), 2, enable_nested_tensor=False))
    model = import_module(module, (random(5, 2, 24),), dynamic_shapes={"src": {0: "S", 1: "B"}})
    assert check(module, model, {"src": random(7, 3, 24)}) == 2 * [
        *BLOCK, "SkipLayerNorm", *FEED_FORWARD, "SkipLayerNorm",
    ]  # fmt: skip


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_traced_file_runs_at_the_one_length_that_fits(batch_first: bool, weights: bool) -> None:
    """The exporter writes the key length of its example as a constant, and declares the axis open all the same."""
    module = seeded(lambda: SelfAttention(batch_first, weights))
    names = {0: "B", 1: "S"} if batch_first else {0: "S", 1: "B"}
    shape = lambda batch, length: (batch, length, 24) if batch_first else (length, batch, 24)  # noqa: E731
    model = traced(module, {"x": random(*shape(2, 5))}, names)
    assert list(model.graph.inputs[0].shape) == list(("B", 5, 24) if batch_first else (5, "B", 24))
    steps = check(module, model, {"x": random(*shape(3, 5))})
    assert weights or steps == BLOCK
    with pytest.raises(qx.errors.ShapeError, match="expected 5"):
        qx.build(model, tune=False).run({"x": random(*shape(3, 7))})


def test_a_traced_encoder() -> None:
    module = seeded(lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 3, 40), 1, enable_nested_tensor=False))
    model = traced(module, {"src": random(5, 2, 24)}, {0: "S", 1: "B"})
    assert check(module, model, {"src": random(5, 3, 24)}) == [
        *BLOCK, "SkipLayerNorm", *FEED_FORWARD, "SkipLayerNorm",
    ]  # fmt: skip
