"""A BERT-like model as both exporters of torch write it, run node by node: against torch and ONNX Runtime, at other
sizes than those it was exported with, and on `meta`."""

import io
import math
import warnings

import onnx
import onnxruntime as ort
import pytest
import torch
from interpreter import interpret
from torch import nn

from qontext.dtypes import BY_NAME, relative_rms


class Layer(nn.Module):
    """One encoder layer with separate projections and a boolean mask."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(hidden, hidden) for _ in range(4))
        self.up, self.down = nn.Linear(hidden, 3 * hidden), nn.Linear(3 * hidden, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, hidden = x.shape

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, self.heads, hidden // self.heads).transpose(1, 2)

        scores = split(self.q(x)) @ split(self.k(x)).transpose(-1, -2) / math.sqrt(hidden // self.heads)
        weights = torch.softmax(scores.masked_fill(mask[:, None, None, :] == 0, float("-inf")), -1)
        context = (weights @ split(self.v(x))).transpose(1, 2).reshape(batch, length, hidden)
        x = self.norm1(x + self.drop(self.o(context)))
        return self.norm2(x + self.down(nn.functional.gelu(self.up(x))))


class Encoder(nn.Module):
    """Embeddings, two layers, mean pooling over valid positions."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 24), nn.Embedding(32, 24)
        self.layers = nn.ModuleList([Layer(24, 3), Layer(24, 3)])

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1])).unsqueeze(0)
        for layer in self.layers:
            x = layer(x, mask)
        weight = mask.unsqueeze(-1).to(x.dtype)
        return nn.functional.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)


def _batch(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(lengths)
    ids = torch.randint(0, 50, (len(lengths), longest), generator=torch.Generator().manual_seed(longest))
    mask = torch.tensor([[int(i < n) for i in range(longest)] for n in lengths])
    return ids, mask


def _export(model: nn.Module, opset: int, dynamo: bool) -> onnx.ModelProto:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            sizes = {0: torch.export.Dim("B"), 1: torch.export.Dim("S")}
            program = torch.onnx.export(
                model, _batch(7, 5), dynamo=True, opset_version=opset, dynamic_shapes=(sizes, sizes), verbose=False
            )
            return program.model_proto
        file = io.BytesIO()
        axes = {name: {0: "B", 1: "S"} for name in ("ids", "mask")}
        torch.onnx.export(
            model,
            _batch(7, 5),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=list(axes),
            output_names=["y"],
            dynamic_axes=axes,
        )
        return onnx.load_from_string(file.getvalue())


@pytest.mark.parametrize(
    ("opset", "dynamo"), [(11, False), (13, False), (14, False), (17, False), (18, True), (23, True)]
)
def test_export(opset: int, dynamo: bool) -> None:
    torch.manual_seed(0)
    model = Encoder().eval()
    exported = _export(model, opset, dynamo)
    model.eval()
    tolerance = BY_NAME["float32"].tolerance
    for lengths in [(7, 5), (9,), (3, 11, 1)]:
        inputs = _batch(*lengths)
        (found,) = interpret(exported, inputs)
        assert relative_rms(found, model(*inputs).detach()) <= tolerance
        session = ort.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
        names = [v.name for v in session.get_inputs()]
        (right,) = session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))
        assert relative_rms(found, torch.from_numpy(right)) <= tolerance
        (shape,) = interpret(exported, [x.to("meta") for x in inputs])
        assert shape.is_meta
        assert (shape.shape, shape.dtype) == (found.shape, found.dtype)
