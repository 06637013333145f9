"""What the ONNX door makes of inputs and outputs: names of sizes, defaults, the mask, the task, plugins."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import FLOAT, INT64, by_us, graph_of, one_node, random

import qontext as qx
from qontext.importers.onnx_model import import_onnx
from qontext.ops.declare import Attribute, Op, Param

node = helper.make_node


def sizes(*inputs: tuple[str, int, Sequence[Any]]) -> list[list[Any]]:
    """The named sizes of a graph that only copies its inputs."""
    nodes = [node("Identity", [name], [f"{name}_copy"]) for name, _, _ in inputs]
    declared = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    outputs = [onnx.ValueInfoProto(name=f"{name}_copy") for name, _, _ in inputs]
    graph = helper.make_graph(nodes, "graph", declared, outputs)
    model = import_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    return [[d if isinstance(d, int) else d.value for d in v.shape] for v in model.graph.inputs]


I, F = TensorProto.INT64, TensorProto.FLOAT


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        pytest.param([("input_ids", I, [None, None])], [["B", "S"]], id="no names"),
        pytest.param([("input_ids", I, ["batch", "sequence"])], [["B", "S"]], id="other names"),
        pytest.param(
            [
                ("input_ids", I, ["n", "m"]),
                ("attention_mask", I, ["unk__1", "unk__2"]),
                ("token_type_ids", I, [None, 7]),
            ],
            [["B", "S"], ["B", "S"], ["B", 7]],
            id="ids share their axes",
        ),
        pytest.param([("input_ids", I, [1, 128])], [[1, 128]], id="numbers stay"),
        pytest.param(
            [("input_ids", I, ["n", "m"]), ("extra", F, ["n", 3, "m", "q"])],
            [["B", "S"], ["B", 3, "S", "q"]],
            id="the same name elsewhere",
        ),
        pytest.param(
            [("a", I, ["M", "K"]), ("b", I, ["K", "N"])], [["M", "K"], ["K", "N"]], id="whole numbers that are no ids"
        ),
        pytest.param([("x", F, [None, None, 768])], [["B", "S", 768]], id="features without names"),
        pytest.param([("x", F, ["B", "S", 768])], [["B", "S", 768]], id="our own names"),
        pytest.param([("x", F, ["T", "u0", "three"])], [["T_1", "u0_1", "three_1"]], id="names of later passes"),
        pytest.param(
            [("x", F, ["past + 1", "a b"]), ("y", F, ["past + 1", "2nd"])],
            [["past_1", "a_b"], ["past_1", "d_2nd"]],
            id="expressions",
        ),
        pytest.param(
            [("x", F, ["a-b", "a.b", "a b"])], [["a_b", "a_b_1", "a_b_2"]], id="names that differ in signs only"
        ),
        pytest.param(
            [("input_ids", I, ["b", "s"]), ("decoder_input_ids", I, ["b", "t"])],
            [["B", "S"], ["B", "t"]],
            id="a decoder has its own length",
        ),
    ],
)
def test_names_of_sizes(inputs: list[tuple[str, int, list[Any]]], expected: list[list[Any]]) -> None:
    assert sizes(*inputs) == expected


def embedding(
    *masks: str, ids: str = "input_ids", logits: Sequence[int] = (9, 5), numbers: bool = False
) -> onnx.ModelProto:
    """Ids looked up in a table, zeroed by every mask (multiplied with its `numbers`), times a matrix."""
    nodes = [node("Gather", ["table", ids], ["h0"])]
    operands: list[Any] = [(ids, (INT64, ["b", "s"])), ("table", random(11, logits[0]))]
    for i, mask in enumerate(masks):
        operands.append((mask, (INT64, ["b", "s"])))
        nodes += [
            node("Cast", [mask], [f"b{i}"], to=TensorProto.INT64 if numbers else TensorProto.BOOL),
            node("Cast", [f"b{i}"], [f"c{i}"], to=TensorProto.FLOAT),
            node("Unsqueeze", [f"c{i}", "last"], [f"u{i}"]),
            node("Mul", [f"h{i}", f"u{i}"], [f"h{i + 1}"]),
        ]
    operands += [("last", np.array([-1])), ("w", random(*logits))]
    nodes.append(node("MatMul", [f"h{len(masks)}", "w"], ["logits"]))
    return graph_of(nodes, operands, ["logits"])


def test_the_attention_mask_and_defaults() -> None:
    model = import_onnx(embedding("attention_mask"))
    assert model.attention_mask == "attention_mask"
    assert model.inputs["attention_mask"].default == "ones"
    assert model.inputs["input_ids"].default is None
    assert model.inputs["input_ids"].limit == 11
    old = import_onnx(embedding("input_mask", "segment_ids"))
    assert old.attention_mask == "input_mask"
    assert (old.inputs["input_mask"].default, old.inputs["segment_ids"].default) == ("ones", "zeros")
    assert import_onnx(embedding("a_mask", "b_mask")).attention_mask is None
    assert import_onnx(embedding("a_mask", "mask")).attention_mask == "mask"
    assert import_onnx(embedding()).attention_mask is None


def test_a_mask_that_is_used_as_numbers_is_an_ordinary_input() -> None:
    model = import_onnx(embedding("attention_mask", numbers=True))
    assert model.attention_mask is None
    assert "attention_mask" not in model.inputs


def test_positions_have_to_be_given() -> None:
    """Counting from 0 would be wrong for a model that counts from 2, and the file does not say."""
    model = import_onnx(embedding("position_ids"))
    assert "position_ids" not in model.inputs
    with pytest.raises(qx.errors.InputError, match="'position_ids' is missing"):
        qx.build(model, tune=False).run({"input_ids": np.zeros((1, 2), np.int64)})


def renamed(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """The model with its one output given out under several names."""
    del model.graph.output[:]
    for name in names:
        model.graph.node.append(node("Identity", ["logits"], [name]))
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    return model


def pooled() -> onnx.ModelProto:
    model = embedding()
    model.graph.node[-1].output[0] = "all"
    model.graph.node.append(node("ReduceMean", ["all"], ["logits"], axes=[1], keepdims=0))
    return model


@pytest.mark.parametrize(
    ("model", "task"),
    [
        pytest.param(embedding(logits=(9, 11)), "fill-mask", id="logits over the vocabulary"),
        pytest.param(embedding(logits=(9, 5)), "token-classify", id="logits of tokens"),
        pytest.param(pooled(), "classify", id="logits of texts"),
        pytest.param(renamed(embedding(), "start_logits", "end_logits"), "answer", id="two logits"),
        pytest.param(renamed(embedding(), "last_hidden_state"), "encode", id="states"),
        pytest.param(renamed(embedding(), "sentence_embedding"), "embed", id="embedding"),
        pytest.param(renamed(embedding(), "output_0"), None, id="a name that says nothing"),
    ],
)
def test_tasks(model: onnx.ModelProto, task: str | None) -> None:
    assert import_onnx(model).task == task
    assert import_onnx(model, task="embed").task == "embed"


def test_weights_listed_as_inputs_are_weights() -> None:
    model = embedding()
    for weight in model.graph.initializer:
        kind = helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
        model.graph.input.append(kind)
    imported = import_onnx(model)
    assert [v.name for v in imported.graph.inputs] == ["input_ids"]


def test_constants_become_weights_in_every_form() -> None:
    nodes = [
        node("Constant", [], ["a"], value=numpy_helper.from_array(np.float32(2.0))),
        node("Constant", [], ["b"], value_float=3.0),
        node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0]),
        node("Constant", [], ["d"], value_int=1),
        node("Constant", [], ["e"], value_ints=[2, 3]),
        node("Mul", ["x", "a"], ["x1"]),
        node("Add", ["x1", "b"], ["x2"]),
        node("Mul", ["x2", "c"], ["x3"]),
        node("Unsqueeze", ["x3", "d"], ["x4"]),
        node("Squeeze", ["x4", "d"], ["x5"]),
        node("Reshape", ["x5", "e"], ["y"]),
    ]
    model = graph_of(nodes, [("x", (FLOAT, [2, 3]))], ["y"])
    imported = import_onnx(model)
    assert "Constant" not in {n.op_type for n in imported.graph}
    assert len(imported.ledger.sources) == 6
    x = random(2, 3)
    np.testing.assert_allclose(by_us(model, {"x": x})[0], (x * 2 + 3) * np.array([1, 2, 3]), rtol=1e-6)


def test_constants_without_numbers_are_refused() -> None:
    text = node("Constant", [], ["a"], name="words", value_string="hello")
    with pytest.raises(
        qx.errors.UnsupportedOperatorError, match="'words' \\(Constant\\) has the attributes value_string"
    ):
        import_onnx(graph_of([text, node("Identity", ["x"], ["y"])], [("x", (FLOAT, [2]))], ["y"]))


TWICE = Op(
    name="Twice",
    doc="y = factor * x",
    inputs=(Param("x", "..."),),
    outputs=(Param("y", "..."),),
    attributes=(Attribute("factor", float, 2.0),),
    reference=lambda x, factor: x * factor,
    domain="com.acme",
    infer=lambda inputs, attributes: (inputs[0],),
)


def test_operators_of_plugins() -> None:
    model = one_node("Twice", "com.acme", [("x", (FLOAT, ["B", 3]))], ["y"], factor=4.0)
    with pytest.raises(qx.errors.UnsupportedOperatorError, match="acme::Twice"):
        import_onnx(model)
    imported = import_onnx(model, plugins=[TWICE])
    x = torch.from_numpy(random(2, 3))
    found = qx.build(imported, tune=False, plugins=[TWICE]).run({"x": x})["y"]
    assert torch.equal(found, x * 4)


def test_a_body_stands_in_for_an_operator_that_nobody_brings() -> None:
    model = one_node("Twice", "com.acme", [("x", (FLOAT, ["B", 3]))], ["y"])
    body = [node("Add", ["x", "x"], ["y"])]
    model.functions.append(helper.make_function("com.acme", "Twice", ["x"], ["y"], body, [helper.make_opsetid("", 17)]))
    assert [n.op_type for n in import_onnx(model).graph if n.op_type != "Identity"] == ["Add"]
    assert [n.op_type for n in import_onnx(model, plugins=[TWICE]).graph] == ["Twice"]
