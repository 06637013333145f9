"""Graphs that break rules: plain errors of the right type, in bounded time, without a recursion crash."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hostile_models import external, inline, model_of, written
from onnx import TensorProto, helper

from qontext.errors import (
    ArgumentError,
    GraphError,
    ModelFormatError,
    QontextError,
    UnsupportedModelError,
    UnsupportedOperatorError,
)
from qontext.graph.onnx_file import read_onnx
from qontext.importers.onnx_model import import_onnx

node = helper.make_node


def refused(kind: type[QontextError], *sentences: str, model: onnx.ModelProto | bytes) -> None:
    """The model is refused with that type, quickly, and the message holds all sentences."""
    start = time.process_time()
    with pytest.raises(QontextError) as error:
        import_onnx(model)
    assert time.process_time() - start < 10
    assert type(error.value) is kind
    for sentence in sentences:
        assert sentence in str(error.value)


def test_cycle() -> None:
    model = model_of(
        node("Relu", ["x"], ["r"], name="first"),
        node("Add", ["r", "b"], ["a"], name="second"),
        node("Sigmoid", ["a"], ["b"], name="third"),
        node("Add", ["r", "b"], ["y"], name="fourth"),
    )
    refused(GraphError, "wait for each other", "'second'", "'third'", model=model)


def test_long_cycle_is_found_without_recursion() -> None:
    count = 20_000
    nodes = [node("Relu", [f"v{(i + 1) % count}"], [f"v{i}"], name=f"n{i}") for i in range(count)]
    refused(GraphError, "wait for each other", model=model_of(*nodes, node("Add", ["x", "v0"], ["y"])))


def test_nodes_in_another_order_are_sorted() -> None:
    model = model_of(node("Relu", ["s"], ["y"], name="second"), node("Sigmoid", ["x"], ["s"], name="first"))
    assert [n.name for n in import_onnx(model).graph] == ["first", "second"]


def test_missing_values_all_at_once() -> None:
    model = model_of(node("Add", ["x", "gone"], ["a"], name="n1"), node("Add", ["a", "lost"], ["b"], name="n2"))
    refused(GraphError, "3 problems", "'n1' (Add)", "'gone'", "'lost'", "output 'y'", model=model)


def test_duplicate_names() -> None:
    twice = model_of(node("Relu", ["x"], ["y"], name="n1"), node("Sigmoid", ["x"], ["y"], name="n2"))
    refused(GraphError, "two values", "'y'", "'n2'", model=twice)
    over_input = model_of(node("Relu", ["x"], ["x"], name="n1"), node("Relu", ["x"], ["y"]))
    refused(GraphError, "two values", "'x'", model=over_input)
    refused(GraphError, "the weight 'w' twice", model=model_of(weights=(inline(), inline())))
    inputs = model_of(node("Relu", ["x"], ["y"]))
    inputs.graph.input.append(inputs.graph.input[0])
    refused(GraphError, "the input 'x' twice", model=inputs)


def nested(depth: int) -> bytes:
    """If in If in If, as bytes: wrapped from the inside out."""

    def field(number: int, content: bytes) -> bytes:
        def varint(value: int) -> bytes:
            out = bytearray()
            while True:
                out.append(value & 127 | (128 if value > 127 else 0))
                value >>= 7
                if not value:
                    return bytes(out)

        return varint(number << 3 | 2) + varint(len(content)) + content

    graph = b""
    for _ in range(depth):
        attribute = field(1, b"then_branch") + b"\xa0\x01\x05" + field(6, graph)
        graph = field(1, field(1, b"c") + field(2, b"y") + field(4, b"If") + field(5, attribute))
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")


def test_sub_graphs_5000_deep_in_a_file() -> None:
    refused(ModelFormatError, "nested too deep", model=nested(5000))


def test_sub_graphs_5000_deep_in_a_message() -> None:
    model = model_of(node("Relu", ["x"], ["y"]))
    graph = model.graph
    for i in range(5000):
        inner = graph.node.add(op_type="If", name=f"if{i}", input=["c"], output=[f"o{i}"])
        graph = inner.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
    refused(ModelFormatError, "deeper than 32", model=model)


@pytest.mark.parametrize("operator", ["If", "Loop", "Scan"])
def test_control_flow(operator: str) -> None:
    body = helper.make_graph([node("Relu", ["x"], ["z"])], "body", [], [onnx.ValueInfoProto(name="z")])
    name = "then_branch" if operator == "If" else "body"
    model = model_of(node(operator, ["x"], ["y"], name="branch", **{name: body}))
    refused(UnsupportedOperatorError, "control flow", f"'branch' ({operator})", model=model)


def deep_type(depth: int) -> onnx.ModelProto:
    model = model_of(node("Relu", ["x"], ["y"]))
    kind = model.graph.value_info.add(name="v").type
    for _ in range(depth):
        kind = kind.sequence_type.elem_type
    kind.tensor_type.elem_type = TensorProto.FLOAT
    return model


def test_deep_types() -> None:
    refused(UnsupportedModelError, "'v' is sequence_type", model=deep_type(5000))


@pytest.mark.parametrize("opset", [99, 29, 10, 0, -1, 2**62])
def test_opsets(opset: int) -> None:
    refused(UnsupportedModelError, f"opset {opset}", "11 to 28", model=model_of(weights=(inline(),), opset=opset))


def test_no_opset_and_two_opsets() -> None:
    model = model_of(weights=(inline(),))
    model.opset_import.append(helper.make_opsetid("", 18))
    refused(UnsupportedModelError, "17 and 18", model=model)
    del model.opset_import[:]
    refused(UnsupportedModelError, "imports no opset", model=model)


def test_unknown_domains_and_operators_name_their_nodes() -> None:
    nodes = [node("Foo", ["x"], [f"v{i}"], name=f"foo{i}", domain="com.acme") for i in range(3)]
    model = model_of(*nodes, node("Frobnicate", ["v0"], ["y"], name="frob"))
    model.opset_import.append(helper.make_opsetid("com.acme", 1))
    refused(
        UnsupportedOperatorError,
        "2 problems",
        "com.acme::Foo",
        "3 nodes, 'foo0', 'foo1', 'foo2'",
        "ai.onnx::Frobnicate",
        "'frob'",
        model=model,
    )


def test_operators_newer_than_the_opset() -> None:
    model = model_of(node("Gelu", ["x"], ["y"], name="g"), opset=17)
    refused(UnsupportedOperatorError, "from opset 20 on", "imports 17", "'g'", model=model)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (node("MatMul", ["x"], ["y"], name="n"), "has 1 inputs; allowed are 2"),
        (node("Relu", ["x", "x"], ["y"], name="n"), "has 2 inputs; allowed are 1"),
        (node("Relu", ["x"], ["y", "z"], name="n"), "has 2 outputs; allowed are 1"),
        (node("Add", ["x", ""], ["y"], name="n"), "lacks its input 'B'"),
        (node("Softmax", ["x"], ["y"], name="n", axes=1), "has the attribute 'axes'; allowed are axis"),
        (node("Softmax", ["x"], ["y"], name="n", axis=1.5), "has the attribute 'axis' as FLOAT"),
        (node("Cast", ["x"], ["y"], name="n"), "lacks its attribute 'to'"),
        (node("And", ["x", "x"], ["y"], name="n"), "'A' ('x') is float"),
    ],
)
def test_operands_and_attributes(bad: onnx.NodeProto, sentence: str) -> None:
    refused(GraphError, "'n'", sentence, model=model_of(bad))


def chain(count: int) -> onnx.ModelProto:
    kinds = ("Relu", "Sigmoid", "Tanh")
    nodes = [node(kinds[i % 3], [f"v{i}" if i else "x"], [f"v{i + 1}"]) for i in range(count)]
    return model_of(*nodes, node("Identity", [f"v{count}"], ["y"]))


def seconds_to_import(model: onnx.ModelProto) -> float:
    start = time.process_time()
    imported = import_onnx(model)
    assert imported.graph.num_nodes() == len(model.graph.node)
    return time.process_time() - start


def test_time_grows_with_the_number_of_nodes() -> None:
    import_onnx(chain(10))  # what is done once
    small, large = seconds_to_import(chain(2_000)), seconds_to_import(chain(10_000))
    assert large < 20
    assert large < 15 * small


@pytest.mark.slow
def test_100_000_nodes() -> None:
    assert seconds_to_import(chain(100_000)) < 120


def test_too_many_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qontext.graph.onnx_checks.MAX_NODES", 50)
    refused(ModelFormatError, "more than 50 nodes", model=chain(60))


def function(name: str, calls: Sequence[str]) -> onnx.FunctionProto:
    """A function whose body is a chain of calls, Relu when there are none."""
    body, value = [], "a"
    for i, call in enumerate(calls or ["Relu"]):
        domain = "local" if calls else ""
        body.append(node(call, [value], [f"b{i}"], domain=domain, name=f"n{i}"))
        value = f"b{i}"
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], [value], body, imports)


def with_functions(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    model = model_of(node("F0", ["x"], ["y"], domain="local", name="call"))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.extend(functions)
    return model


def test_functions_are_put_in_place() -> None:
    model = with_functions(function("F0", ["F1"] * 3), function("F1", ["F2"] * 2), function("F2", []))
    imported = import_onnx(model)
    assert [n.op_type for n in imported.graph if n.op_type != "Identity"] == ["Relu"] * 6
    assert len({n.name for n in imported.graph}) == imported.graph.num_nodes()


def test_functions_that_explode() -> None:
    levels = [function(f"F{i}", [f"F{i + 1}"] * 10) for i in range(20)]
    refused(ModelFormatError, "more than 1000000 nodes", model=with_functions(*levels, function("F20", [])))


def test_functions_that_call_themselves() -> None:
    model = with_functions(function("F0", ["F1"]), function("F1", ["F0"]))
    refused(GraphError, "call themselves", "local::F0", model=model)


def test_functions_nested_5000_deep() -> None:
    levels = [function(f"F{i}", [f"F{i + 1}"]) for i in range(5000)]
    model = with_functions(*levels, function("F5000", []))
    refused(ModelFormatError, "more than 32 levels", model=model)


def test_a_function_with_another_opset() -> None:
    model = with_functions(function("F0", []))
    model.functions[0].opset_import[0].version = 20
    refused(ModelFormatError, "imports ai.onnx 20, the model 17", model=model)


def test_attributes_without_content() -> None:
    bad = node("Constant", [], ["w"], name="n")
    bad.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    refused(ModelFormatError, "without their content", model=model_of(bad, node("MatMul", ["x", "w"], ["y"])))


def test_names_that_are_no_text() -> None:
    data = model_of(node("Relu", ["x"], ["y"], name="abcdef")).SerializeToString().replace(b"abcdef", b"ab\xff\xfeef")
    refused(ModelFormatError, "no UTF-8 text", model=data)


FOREIGN = {
    "empty": (b"", "is empty"),
    "text": (b"hello, this is a text file\n" * 30, "it is text"),
    "html": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "HTML page"),
    "json": (b'{"model_type": "bert"}', "JSON text"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    "zip": (b"PK\x03\x04" + bytes(100), "zip archive"),
    "pickle": (b"\x80\x02}q\x00.", "never opened"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "gzip"),
    "safetensors": (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{}}' + bytes(60), "safetensors"),
    "noise": (bytes(range(1, 256)), "no ONNX model"),
    "no graph": (b"\x08\x08", "holds no graph"),
}


@pytest.mark.parametrize("name", list(FOREIGN))
def test_other_formats(name: str, tmp_path: Path) -> None:
    data, sentence = FOREIGN[name]
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ModelFormatError, match=sentence):
        import_onnx(tmp_path / "model.onnx")
    refused(ModelFormatError, sentence, model=data)


def test_sources_that_are_none(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "missing.onnx", "a\0b"):
        with pytest.raises(ModelFormatError):
            read_onnx(source)
    with pytest.raises(ArgumentError, match="allowed are a path"):
        read_onnx(17)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="task is 'translate'"):
        import_onnx(model_of(weights=(inline(),)), task="translate")


def test_a_file_beyond_the_limit_of_protobuf(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with open(path, "wb") as file:
        file.truncate(1 << 31)
    with pytest.raises(ModelFormatError, match="external data"):
        import_onnx(path)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 0.999])
def test_cut_files(place: float) -> None:
    data = model_of(weights=(inline(),)).SerializeToString()
    with pytest.raises(QontextError):
        import_onnx(data[: int(len(data) * place)])


def test_damaged_bytes_never_escape() -> None:
    """A short walk of the fuzzer; whatever happens is an import or one of our errors."""
    honest = model_of(
        node("MatMul", ["x", "w"], ["a"], name="n1"),
        node("Softmax", ["a"], ["b"], name="n2", axis=-1),
        node("Transpose", ["b"], ["y"], name="n3", perm=[1, 0]),
        weights=(inline(),),
    ).SerializeToString()
    random = np.random.default_rng(0)
    refusals = 0
    for _ in range(400):
        data = bytearray(honest)
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(data)))
            if random.random() < 0.7:
                data[place] = int(random.integers(256))
            else:
                del data[place : place + int(random.integers(1, 9))]
        try:
            import_onnx(bytes(data))
        except QontextError:
            refusals += 1
    assert refusals > 100


def test_external_data_come_before_everything_else(tmp_path: Path) -> None:
    model = model_of(node("Foo", ["x"], ["y"], domain="com.acme"), weights=(external("../../etc/passwd"),))
    with pytest.raises(ModelFormatError, match="external data"):
        import_onnx(written(tmp_path / "model", model))
