"""An encoder that ONNX Runtime's own optimiser has fused imports and equals ONNX Runtime."""

import functools

import numpy as np
import onnx
import pytest
from encoder_exports import VOCABULARY, by_torchscript, quiet
from onnx_graphs import by_onnxruntime, by_us, relative_error
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions

from qontext.dtypes import BY_NAME
from qontext.importers.onnx_model import import_onnx

OPERATORS = {"Attention", "BiasGelu", "EmbedLayerNormalization", "SkipLayerNormalization"}


@functools.cache
def optimised(opset: int, mask_index: bool) -> onnx.ModelProto:
    options = FusionOptions("bert")
    if mask_index:
        options.use_raw_attention_mask(False)
    with quiet():
        model = onnx.load_from_string(by_torchscript("bert", opset))
        result = optimizer.optimize_model(
            model, model_type="bert", num_heads=3, hidden_size=24, opt_level=0, optimization_options=options
        )
    return result.model


def feeds(rows: int, length: int) -> dict[str, np.ndarray]:
    given = np.random.default_rng(rows)
    mask = np.ones((rows, length), np.int64)
    for row in range(1, rows):
        mask[row, length - 2 * row :] = 0
    return {
        "input_ids": given.integers(0, VOCABULARY, (rows, length)),
        "attention_mask": mask,
        "token_type_ids": given.integers(0, 2, (rows, length)),
    }


@pytest.mark.parametrize("mask_index", [False, True])
def test_fused_encoder_equals_onnxruntime(mask_index: bool) -> None:
    model = optimised(11, mask_index)
    assert {node.op_type for node in model.graph.node if node.domain == "com.microsoft"} >= OPERATORS
    imported = import_onnx(model)
    imported.ledger.check(imported.graph)
    assert imported.attention_mask == "attention_mask"
    assert imported.inputs["input_ids"].limit == VOCABULARY
    for rows, length in ((3, 9), (1, 4)):
        inputs = feeds(rows, length)
        real = inputs["attention_mask"].astype(bool)
        right, found = by_onnxruntime(model, inputs)[0], by_us(imported, inputs)[0]
        assert relative_error(found[real], right[real]) <= BY_NAME["float32"].tolerance


def test_half_fused_encoder_equals_onnxruntime() -> None:
    # The optimiser does not know the attention of this opset, so its operators stand among standard ones.
    model = optimised(14, False)
    inputs = feeds(2, 7)
    real = inputs["attention_mask"].astype(bool)
    right, found = by_onnxruntime(model, inputs)[0], by_us(model, inputs)[0]
    assert relative_error(found[real], right[real]) <= BY_NAME["float32"].tolerance
