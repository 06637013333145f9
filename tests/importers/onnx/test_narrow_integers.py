"""Integers of 2 and 4 bits: packed in files, one to a byte in tensors, and never taken for wider ones."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import qontext as qx
from qontext.errors import GraphError

KINDS = {"INT4": (-8, 7), "UINT4": (0, 15), "INT2": (-2, 1), "UINT2": (0, 3)}


def model(nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def run(made, **inputs):
    engine = qx.build(qx.import_model(made), tune=False)
    return next(iter(engine.run(inputs).values()))


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)


def zero_of(kind, zero):
    held = helper.tensor_dtype_to_np_dtype(getattr(TensorProto, kind))
    return numpy_helper.from_array(np.array(zero).astype(held), "zero")


@pytest.mark.parametrize("how", ["zero point", "output_dtype", "zero point that was moved", "zero point that was cast"])
@pytest.mark.parametrize("kind", KINDS)
def test_quantize_keeps_to_the_range(kind, how):
    low, high = KINDS[kind]
    x = np.linspace(-40, 40, 54, dtype=np.float32).reshape(6, 9)
    scale = numpy_helper.from_array(np.float32(1.5), "scale")
    nodes, weights, attributes = [], [scale], {}
    names = ["x", "scale"]
    zero = 0 if how == "output_dtype" else 1
    if how == "output_dtype":
        attributes = {"output_dtype": getattr(TensorProto, kind)}
    elif how == "zero point that was cast":
        weights.append(numpy_helper.from_array(np.int32(zero), "wide"))
        nodes.append(helper.make_node("Cast", ["wide"], ["zero"], to=getattr(TensorProto, kind)))
        names.append("zero")
    else:
        weights.append(zero_of(kind, zero))
        names.append("zero")
        if how == "zero point that was moved":
            nodes.append(helper.make_node("Identity", ["zero"], ["moved"]))
            names[-1] = "moved"
    nodes.append(helper.make_node("QuantizeLinear", names, ["y"], **attributes))
    made = model(nodes, [value("x", "FLOAT", [6, 9])], [value("y", kind, [6, 9])], weights)
    found = run(made, x=x)
    wanted = np.clip(np.rint(x / np.float32(1.5)) + zero, low, high)
    assert found.dtype == (np.int8 if low < 0 else np.uint8)
    np.testing.assert_array_equal(found, wanted)
    assert found.min() == low
    assert found.max() == high


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [3, 4])
def test_there_and_back_in_blocks(kind, block):
    low, high = KINDS[kind]
    generator = np.random.default_rng(block)
    x = generator.normal(size=(4, 10)).astype(np.float32)
    count = -(-10 // block)
    scale = generator.uniform(0.2, 1, (4, count)).astype(np.float32)
    zero = generator.integers(low, high + 1, (4, count))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], axis=1, block_size=block),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], axis=1, block_size=block),
    ]
    weights = [numpy_helper.from_array(scale, "scale"), zero_of(kind, zero)]
    made = model(nodes, [value("x", "FLOAT", [4, 10])], [value("y", "FLOAT", [4, 10])], weights)
    wide, offset = (np.repeat(a, block, 1)[:, :10] for a in (scale, zero))
    quantised = np.clip(np.rint(x / wide) + offset, low, high)
    np.testing.assert_allclose(run(made, x=x), (quantised - offset) * wide, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 7, 8])
def test_packed_weights_of_a_file(kind, count, tmp_path):
    low, high = KINDS[kind]
    whole = np.arange(count) % (high - low + 1) + low
    made = onnx.load_model_from_string(
        model(
            [
                helper.make_node("DequantizeLinear", ["zero", "scale"], ["w"]),
                helper.make_node("Add", ["x", "w"], ["y"]),
            ],
            [value("x", "FLOAT", [count])],
            [value("y", "FLOAT", [count])],
            [zero_of(kind, whole), numpy_helper.from_array(np.float32(0.5), "scale")],
        )
    )
    onnx.save_model(made, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    found = run(tmp_path / "m.onnx", x=np.zeros(count, np.float32))
    np.testing.assert_array_equal(found, whole * np.float32(0.5))


def test_cast_like_a_narrow_weight():
    nodes = [helper.make_node("CastLike", ["x", "zero"], ["q"]), helper.make_node("Cast", ["q"], ["y"], to=1)]
    made = model(nodes, [value("x", "FLOAT", [5])], [value("y", "FLOAT", [5])], [zero_of("INT4", 0)])
    found = run(made, x=np.array([-9, -8, 7, 8, 17], np.float32))
    np.testing.assert_array_equal(found, [7, -8, 7, -8, 1])


def test_two_types_at_once_are_refused():
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"], output_dtype=TensorProto.UINT4)
    weights = [numpy_helper.from_array(np.float32(1), "scale"), zero_of("INT4", 0)]
    graph = helper.make_graph([node], "g", [value("x", "FLOAT", [5])], [value("y", "UINT4", [5])], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)
    with pytest.raises(GraphError, match="output_dtype UINT4 and a zero point of INT4"):
        qx.import_model(made.SerializeToString())


def test_one_value_to_a_byte_is_what_the_table_says():
    for name, (low, _) in KINDS.items():
        kind = qx.dtypes.by_name(name.lower())
        assert kind.torch == (torch.int8 if low < 0 else torch.uint8)
        assert kind.bits == int(name[-1])
    assert qx.dtypes.from_torch(torch.int8).name == "int8"
    assert qx.dtypes.from_torch(torch.uint8).name == "uint8"
