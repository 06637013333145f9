"""Models that cannot be explained get a page that says what is wrong."""

import pytest
from onnx import TensorProto, helper

import qontext as qx
from qontext.errors import QontextError
from qontext.report import failure


def unknown_operators():
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], name="one"),
        helper.make_node("Whirl", ["a"], ["y"], name="two"),
    ]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", 4]) for n in ("x", "y")]
    return helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:])).SerializeToString()


def no_producer():
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", 4]) for n in ("x", "y")]
    node = helper.make_node("Add", ["x", "ghost"], ["y"], name="haunted")
    return helper.make_model(helper.make_graph([node], "g", value[:1], value[1:])).SerializeToString()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"not a model at all", ["no ONNX model"]),
        (b"", []),
        (unknown_operators(), ["Frobnicate", "Whirl"]),
        (no_producer(), ["ghost"]),
    ],
    ids=["garbage", "empty", "unknown operators", "no producer"],
)
def test_pages_of_bad_models(data, words, tmp_path):
    path = tmp_path / "secret" / "bad.onnx"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(QontextError) as caught:
        qx.build(qx.import_model(path), tune=False)
    report = failure(str(path), caught.value)
    page = report.html()
    for word in [*words, caught.value.code, "bad.onnx", "What is wrong"]:
        assert word in page
    assert "Traceback" not in page and str(tmp_path) not in page and "secret" not in page
    assert report.data["kind"] == type(caught.value).__name__ and report.data["environment"]["versions"]["torch"]
    report.save(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == page
    assert report.data["summary"] in str(report)


def test_all_problems_are_listed(tmp_path):
    (tmp_path / "m.onnx").write_bytes(unknown_operators())
    with pytest.raises(QontextError) as caught:
        qx.import_model(tmp_path / "m.onnx")
    assert len(failure("m.onnx", caught.value).data["problems"]) >= 2


def test_a_fault_of_ours_is_called_so():
    data = failure("m", ZeroDivisionError("division by zero")).data
    assert data["kind"] == "internal error" and "fault of qontext" in data["meaning"]
