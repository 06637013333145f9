"""Exports of every family of encoders, by both exporters and many opsets, equal the module they came from."""

import numpy as np
import pytest
import torch
from encoder_exports import ENCODERS, LONGEST, VOCABULARY, batch, by_dynamo, by_torchscript, right_outputs
from onnx_graphs import relative_error

import qontext as qx
from qontext.dtypes import BY_NAME
from qontext.importers.onnx_model import import_onnx

FAMILIES = list(ENCODERS)
# Capturing a graph takes seconds: by default one family at every opset, and those whose graphs differ most once.
DYNAMO = [("bert", 18), ("bert", 20), ("bert", 23), ("roberta", 20), ("mpnet", 18), ("albert", 23)]
OTHER_DYNAMO = [(f, o) for f in FAMILIES for o in (18, 20, 23) if (f, o) not in DYNAMO]


def check(family: str, data: bytes, names: bool) -> None:
    model = import_onnx(data)
    model.ledger.check(model.graph)
    assert model.attention_mask == "attention_mask"
    assert model.inputs["input_ids"].limit == VOCABULARY
    engine = qx.build(model, tune=False)
    for rows, length in ((3, 11), (1, 5)):
        inputs = batch(family, rows, length)
        right, found = right_outputs(family, inputs), engine.run(inputs)
        if names:
            assert list(found) == list(right)
        for ours, theirs in zip(found.values(), right.values(), strict=False):
            a, b = ours.numpy(), theirs
            if b.ndim > 1 and b.shape[1] == length:
                real = inputs["attention_mask"].numpy().astype(bool)
                a, b = a[real], b[real]
            assert relative_error(a, b) <= BY_NAME["float32"].tolerance


@pytest.mark.parametrize("opset", [11, 14, 17])
@pytest.mark.parametrize("family", FAMILIES)
def test_traced_exports(family: str, opset: int) -> None:
    data = by_torchscript(family, opset)
    check(family, data, names=True)
    assert import_onnx(data).task == ENCODERS[family].task


@pytest.mark.parametrize(("family", "opset"), DYNAMO)
def test_captured_exports(family: str, opset: int) -> None:
    check(family, by_dynamo(family, opset), names=False)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "opset"), OTHER_DYNAMO)
def test_captured_exports_at_other_opsets(family: str, opset: int) -> None:
    check(family, by_dynamo(family, opset), names=False)


@pytest.mark.parametrize("exporter", ["traced", "captured"])
def test_origins_are_module_paths(exporter: str) -> None:
    data = by_torchscript("bert", 14) if exporter == "traced" else by_dynamo("bert", 18)
    sources = import_onnx(data).ledger.sources.values()
    origins = {source.origin.removeprefix("inner.") for source in sources}  # of the wrapper that traces
    assert "bert.encoder.layer.0.attention.self" in origins
    assert "bert.encoder.layer.1.output.dense" in origins


def test_sizes_are_called_b_and_s() -> None:
    for data in (by_torchscript("bert", 14), by_dynamo("bert", 18)):
        graph = import_onnx(data).graph
        assert [list(v.shape) for v in graph.inputs] == [["B", "S"]] * 3
        assert list(graph.outputs[0].shape) == ["B", "S", VOCABULARY]


def test_defaults_and_limits() -> None:
    model = import_onnx(by_torchscript("bert", 14))
    assert model.config["max_length"] == LONGEST
    engine = qx.build(model, tune=False)
    ids = batch("bert", 2, 6)["input_ids"]
    ones, zeros = torch.ones_like(ids), torch.zeros_like(ids)
    given = engine.run({"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros})["logits"]
    left_out = engine.run({"input_ids": ids})["logits"]
    np.testing.assert_array_equal(left_out.numpy(), given.numpy())
    with pytest.raises(qx.errors.InputError, match="holds 99"):
        engine.run({"input_ids": np.full((1, 3), VOCABULARY)})
    with pytest.raises(qx.errors.InputError, match="65 tokens"):
        engine.run({"input_ids": np.ones((1, LONGEST + 1), np.int64)})
