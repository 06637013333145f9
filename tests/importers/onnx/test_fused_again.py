"""A fused model saved as ONNX, with function bodies for our operators, comes back as the same operators."""

from pathlib import Path

import onnx_ir as ir
import onnxruntime
from encoder_exports import batch, by_torchscript
from onnx_graphs import relative_error

import qontext as qx
from qontext.dtypes import BY_NAME
from qontext.graph.onnx_file import read_onnx, write_onnx
from qontext.importers.onnx_model import import_onnx
from qontext.ops.body import with_bodies


def test_fused_model_through_a_file(tmp_path: Path) -> None:
    engine = qx.build(import_onnx(by_torchscript("bert", 14)), tune=False)
    fused = engine.compiled.fused
    assert fused is not None
    path = tmp_path / "fused.onnx"
    write_onnx(with_bodies(ir.Model(fused, ir_version=10)), path)
    assert len(read_onnx(path).functions) > 3

    again = import_onnx(path)
    operators = [node.op_type for node in again.graph if node.domain == "qontext"]
    assert operators == [node.op_type for node in fused if node.domain == "qontext"]
    assert not any(node.overload for node in again.graph)

    inputs = batch("bert")
    real = inputs["attention_mask"].numpy().astype(bool)
    right = engine.run(inputs)["logits"].numpy()[real]
    found = qx.build(again, tune=False).run(inputs)["logits"].numpy()[real]
    assert relative_error(found, right) <= BY_NAME["float32"].tolerance
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    oracle = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0][real]
    assert relative_error(found, oracle) <= BY_NAME["float32"].tolerance
