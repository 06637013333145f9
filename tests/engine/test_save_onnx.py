"""A fused model saved as ONNX is a valid ONNX model: ONNX Runtime runs it through the bodies, equal numbers."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

import qontext as qx
from qontext.dtypes import BY_NAME, relative_rms
from qontext.errors import ArgumentError

sys.path.insert(0, str(Path(__file__).parents[1] / "importers" / "huggingface"))
from test_parity import ragged, saved


@pytest.mark.parametrize(
    ("family", "head"), [("Bert", "ForMaskedLM"), ("MPNet", "Model"), ("Albert", "ForSequenceClassification")]
)
def test_onnx_runtime_runs_the_fused_model(family, head, tmp_path):
    reference = saved(family, head, tmp_path)
    engine = qx.build(qx.import_model(tmp_path), tune=False)
    path = tmp_path / "fused.onnx"
    engine.save_onnx(path)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    ids, mask = ragged(reference.config.pad_token_id)
    real = mask.bool()
    positions = torch.arange(ids.shape[1]).expand(ids.shape)
    if reference.config.model_type == "mpnet":
        positions = (ids != 1).long().cumsum(1) * (ids != 1) + 1
    given = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": torch.zeros_like(ids),
        "position_ids": positions,
    }
    feeds = {i.name: given[i.name].numpy() for i in session.get_inputs()}
    want = session.run(None, feeds)
    got = engine.run({"input_ids": ids, "attention_mask": mask})
    assert [o.name for o in session.get_outputs()] == list(got)
    for array, tensor in zip(want, got.values(), strict=True):
        a, b = tensor, torch.from_numpy(np.asarray(array))
        if a.dim() >= 2 and a.shape[:2] == mask.shape:
            a, b = a[real], b[real]
        assert relative_rms(a, b) < BY_NAME["float32"].tolerance


def test_a_loaded_engine_has_no_fused_model(tmp_path):
    saved("Bert", "Model", tmp_path)
    qx.build(qx.import_model(tmp_path), tune=False).save(tmp_path / "m.qx")
    with pytest.raises(ArgumentError, match="holds the packed program only"):
        qx.load(tmp_path / "m.qx").save_onnx(tmp_path / "m.onnx")
