"""Weights and declarations that contradict each other, and operators that ask for more than a file may."""

import numpy as np
import onnx
import pytest
from hostile_models import WEIGHT, inline, model_of
from onnx import TensorProto, helper, numpy_helper

import qontext as qx
from qontext.errors import GraphError, QontextError, ShapeError, UnsupportedModelError, WeightsError
from qontext.importers.onnx_model import import_onnx

node = helper.make_node


def refused(kind: type[QontextError], model: onnx.ModelProto, *sentences: str) -> None:
    with pytest.raises(QontextError) as error:
        import_onnx(model)
    assert type(error.value) is kind
    for sentence in sentences:
        assert sentence in str(error.value)


def spoiled(**changes: object) -> onnx.TensorProto:
    tensor = inline()
    for name, value in changes.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)  # type: ignore[arg-type]
        elif isinstance(value, list):
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return tensor


WEIGHTS = {
    "too few bytes": (spoiled(raw_data=b"\0" * 8), "128 bytes, but holds 8 bytes"),
    "another shape": (spoiled(dims=[8, 8]), "FLOAT[8, 8], 256 bytes, but holds 128"),
    "another type": (spoiled(data_type=TensorProto.DOUBLE), "DOUBLE[8, 4], 256 bytes"),
    "unknown type": (spoiled(data_type=99), "unknown data type 99"),
    "undefined type": (spoiled(data_type=0), "unknown data type 0"),
    "negative size": (spoiled(dims=[-8, -4]), "allowed are sizes from 0"),
    "overflowing size": (spoiled(dims=[2**32, 2**32, 2**32]), "but holds 128 bytes"),
    "enormous size": (spoiled(dims=[2**62, 0]), "allowed are sizes from 0"),
    "data twice": (spoiled(float_data=[1.0]), "more than once"),
    "data in the wrong field": (
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 4], int64_data=[1] * 32),
        "allowed is float_data",
    ),
    "too few values": (
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 4], float_data=[1.0] * 31),
        "32 values in float_data, but holds 31",
    ),
    "no data": (TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 4]), "but holds 0"),
}


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_weights_that_do_not_fit_their_shape(name: str) -> None:
    tensor, sentence = WEIGHTS[name]
    refused(WeightsError, model_of(weights=(tensor,)), "weight 'w'", sentence)


def test_all_weights_are_listed() -> None:
    weights = tuple(numpy_helper.from_array(WEIGHT, f"w{i}") for i in range(3))
    for weight in weights:
        weight.raw_data = b"\0"
    refused(WeightsError, model_of(weights=weights), "3 problems", "'w0'", "'w1'", "'w2'")


def test_constants_are_checked_too() -> None:
    bad = node("Constant", [], ["w"], name="held", value=spoiled(raw_data=b"\0"))
    refused(WeightsError, model_of(bad, node("MatMul", ["x", "w"], ["y"])), "'value' of node 'held' (Constant)")


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.UINT16])
def test_types_that_are_not_held(kind: int) -> None:
    if kind == TensorProto.STRING:
        tensor = TensorProto(name="w", data_type=kind, dims=[1], string_data=[b"text"])
    else:
        tensor = TensorProto(name="w", data_type=kind, dims=[0])
    refused(UnsupportedModelError, model_of(node("Relu", ["x"], ["y"]), weights=(tensor,)), "weight 'w'")


def test_a_weight_that_does_not_fit_its_operator() -> None:
    weight = numpy_helper.from_array(WEIGHT.T.copy(), "w")
    refused(GraphError, model_of(weights=(weight,)), "'product' (MatMul)", "x[B, 8]", "w[4, 8]")


def test_symbols_that_cannot_be_equal() -> None:
    model = model_of(node("Add", ["x", "z"], ["y"], name="sum"))
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["other", 8]))
    refused(GraphError, model, "'sum' (Add)", "x[B, 8]", "z[other, 8]")


def declared(kind: int, shape: list[int | str]) -> onnx.ModelProto:
    model = model_of(node("MatMul", ["x", "w"], ["h"], name="product"), node("Relu", ["h"], ["y"]), weights=(inline(),))
    model.graph.value_info.append(helper.make_tensor_value_info("h", kind, shape))
    return model


def test_declarations_that_contradict_the_operators() -> None:
    refused(GraphError, declared(TensorProto.FLOAT, ["B", 5]), "'product' (MatMul)", "[B, 4]", "[B, 5]")
    refused(GraphError, declared(TensorProto.FLOAT, ["B", 4, 1]), "'product' (MatMul)", "[B, 4, 1]")
    refused(GraphError, declared(TensorProto.INT64, ["B", 4]), "'product' (MatMul)", "FLOAT", "INT64")
    assert import_onnx(declared(TensorProto.FLOAT, ["batch", 4])).graph.num_nodes() == 2
    assert import_onnx(declared(TensorProto.FLOAT, [1, 4])).graph.num_nodes() == 2


def test_a_size_of_zero() -> None:
    model = model_of(node("Relu", ["x"], ["y"]))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    engine = qx.build(import_onnx(model), tune=False)
    assert engine.run({"x": np.zeros((0, 8), np.float32)})["y"].shape == (0, 8)
    with pytest.raises(ShapeError, match="expected 0"):
        engine.run({"x": np.zeros((1, 8), np.float32)})


@pytest.mark.parametrize("size", [-1, 2**62])
def test_sizes_that_no_input_has(size: int) -> None:
    model = model_of(weights=(inline(),))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    refused(UnsupportedModelError, model, "input 'x'", str(size))


def test_inputs_without_type_or_shape() -> None:
    model = model_of(weights=(inline(),))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    refused(UnsupportedModelError, model, "'x' has no shape")
    model.graph.input[0].ClearField("type")
    refused(UnsupportedModelError, model, "'x' has no data type")


def numbers(*values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64))


def bomb(op_type: str, *operands: onnx.TensorProto, data: bool, **attributes: object) -> onnx.ModelProto:
    names = [f"o{i}" for i in range(len(operands))]
    held = [node("Constant", [], [n], value=t) for n, t in zip(names, operands, strict=True)]
    return model_of(*held, node(op_type, ["x"] * data + names, ["y"], name="bomb", **attributes))


BOMBS = {
    "ConstantOfShape": bomb("ConstantOfShape", numbers(2**20, 2**20), data=False),
    "Expand": bomb("Expand", numbers(2**30, 2**30, 1, 8), data=True),
    "Tile": bomb("Tile", numbers(2**40, 2**20), data=True),
    "Range": bomb("Range", *(numpy_helper.from_array(np.array(v)) for v in (0, 2**60, 1)), data=False),
    "Pad": bomb("Pad", numbers(0, 0, 2**50, 0), data=True),
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_small_files_do_not_make_big_tensors(name: str) -> None:
    refused(UnsupportedModelError, BOMBS[name], "'bomb'", "at most")


def test_constants_do_not_multiply_in_memory() -> None:
    """Every step doubles a constant; followed by value, forty of them would take terabytes."""
    model = model_of()
    del model.graph.node[:]
    model.graph.node.append(node("Constant", [], ["c0"], value=numpy_helper.from_array(np.zeros((1, 64), np.int64))))
    for i in range(40):
        model.graph.node.append(node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], name=f"n{i}", axis=0))
    model.graph.node.append(node("Identity", ["x"], ["y"]))
    with pytest.raises(QontextError, match="elements"):
        import_onnx(model)


def test_pairs_of_constants_do_not_multiply_in_memory() -> None:
    column = numpy_helper.from_array(np.zeros((1 << 17, 1), np.int64))
    row = numpy_helper.from_array(np.zeros((1, 1 << 17), np.int64))
    nodes = [node("Constant", [], ["c"], value=column), node("Constant", [], ["r"], value=row)]
    model = model_of(*nodes, node("Add", ["c", "r"], ["big"], name="pair"), node("Identity", ["x"], ["y"]))
    with pytest.raises(QontextError, match="elements"):
        import_onnx(model)
