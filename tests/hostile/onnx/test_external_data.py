"""External data may not lead out of the model's folder, by any path, in any place of the file."""

import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hostile_models import PAYLOAD, WEIGHT, external, inline, model_of, opened, written
from onnx import TensorProto, helper

import qontext as qx
from qontext.errors import ModelFormatError, QontextError
from qontext.graph import onnx_external
from qontext.graph.onnx_file import read_onnx, write_onnx
from qontext.importers.onnx_model import import_onnx


def test_honest_external_data(tmp_path: Path) -> None:
    path = written(tmp_path / "model", model_of(weights=(external(offset="0", length=str(len(PAYLOAD))),)))
    x = np.ones((3, 8), np.float32)
    found = qx.build(import_onnx(path), tune=False).run({"x": x})["y"]
    np.testing.assert_allclose(found, x @ WEIGHT, rtol=1e-6)


def test_external_data_are_mapped_not_read(tmp_path: Path) -> None:
    path = written(tmp_path / "model", model_of(weights=(external(),)))
    with open(path.parent / "w.bin", "ab") as file:
        file.truncate(1 << 36)  # a hole: it takes no room on the disk
    array = read_onnx(path).graph.initializers["w"].const_value.numpy()
    assert np.array_equal(array, WEIGHT)
    assert array.flags.writeable  # copy-on-write, so torch takes it without a copy
    array[0, 0] = 7
    with open(path.parent / "w.bin", "rb") as file:
        assert file.read(4) == PAYLOAD[:4]


SECRET = "secret.bin"
OUTSIDE = {
    "parent": f"../{SECRET}",
    "detour": f"sub/../../{SECRET}",
    "inner dots": "sub/../w.bin",
    "backslash": f"..\\{SECRET}",
    "empty": "",
    "dot": ".",
    "nul": "w.bin\0x",
    "long": "a/" * 3000 + "w.bin",
}


def refused(path: Path, secret: str = SECRET) -> str:
    """Reads the file, asserting that it is refused and that nothing called `secret` was opened."""
    with opened() as names, pytest.raises(ModelFormatError) as error:
        read_onnx(path)
    assert not [n for n in names if Path(n).name == secret]
    return str(error.value)


@pytest.mark.parametrize("name", list(OUTSIDE))
def test_locations_outside(name: str, tmp_path: Path) -> None:
    (tmp_path / SECRET).write_bytes(PAYLOAD)
    path = written(tmp_path / "model", model_of(weights=(external(OUTSIDE[name]),)))
    (path.parent / "sub").mkdir()
    assert "weight 'w'" in refused(path)


def test_absolute_location(tmp_path: Path) -> None:
    (tmp_path / SECRET).write_bytes(PAYLOAD)
    path = written(tmp_path / "model", model_of(weights=(external(str(tmp_path / SECRET)),)))
    assert "relative path" in refused(path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / SECRET).write_bytes(PAYLOAD)
    leaf = written(tmp_path / "leaf", model_of(weights=(external("w2.bin"),)))
    (leaf.parent / "w2.bin").symlink_to(outside / SECRET)
    assert "symbolic link" in refused(leaf)
    parent = written(tmp_path / "parent", model_of(weights=(external(f"sub/{SECRET}"),)))
    (parent.parent / "sub").symlink_to(outside)
    assert "symbolic link" in refused(parent)
    inside = written(tmp_path / "inside", model_of(weights=(external("w2.bin"),)))
    (inside.parent / "w2.bin").symlink_to("w.bin")
    assert "symbolic link" in refused(inside, "w2.bin")


def test_hard_links_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "model", model_of(weights=(external(SECRET),)))
    (tmp_path / "elsewhere").write_bytes(PAYLOAD)
    os.link(tmp_path / "elsewhere", path.parent / SECRET)
    assert "2 hard links" in refused(path)


def test_devices_and_pipes_are_refused(tmp_path: Path) -> None:
    for name, make in (("pipe", os.mkfifo), ("folder", os.mkdir)):
        path = written(tmp_path / name, model_of(weights=(external(SECRET),)))
        make(path.parent / SECRET)
        assert "no regular file" in refused(path)
    beside_a_device = written(tmp_path / "device", model_of(weights=(external("null"),)))
    beside_a_device.parent.joinpath("null").symlink_to("/dev/null")
    assert "symbolic link" in refused(beside_a_device, "null")


@pytest.mark.parametrize("swap", ["link", "hard link", "other file", "pipe"])
def test_swap_between_look_and_open(swap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / SECRET).write_bytes(PAYLOAD)
    path = written(tmp_path / "model", model_of(weights=(external(),)))
    target = path.parent / "w.bin"
    real_stat = os.stat

    def swapping(name: object, *args: object, **kwargs: object) -> os.stat_result:
        result = real_stat(name, *args, **kwargs)  # type: ignore[arg-type]
        if name == "w.bin":
            target.unlink()
            if swap == "link":
                target.symlink_to(tmp_path / SECRET)
            elif swap == "hard link":
                os.link(tmp_path / SECRET, target)
            elif swap == "pipe":
                os.mkfifo(target)
            else:
                (tmp_path / "other").write_bytes(PAYLOAD)
                os.replace(tmp_path / "other", target)
        return result

    monkeypatch.setattr(onnx_external.os, "stat", swapping)
    refused(path)


def test_parent_swapped_after_the_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / SECRET).write_bytes(PAYLOAD)
    path = written(tmp_path / "model", model_of(weights=(external(f"sub/{SECRET}"),)))
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / SECRET).write_bytes(PAYLOAD)
    real_open = os.open

    def swapping(name: object, *args: object, **kwargs: object) -> int:
        if name == "sub":
            os.rename(path.parent / "sub", path.parent / "gone")
            (path.parent / "sub").symlink_to(outside)
        return real_open(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(onnx_external.os, "open", swapping)
    assert "cannot read external data" in refused(path)


NUMBERS = {
    "negative offset": {"offset": "-4"},
    "offset as text": {"offset": "0x10"},
    "float offset": {"offset": "1e3"},
    "offset in other digits": {"offset": "٣"},
    "huge offset": {"offset": str(1 << 60)},
    "overflowing offset": {"offset": str(1 << 64)},
    "offset beyond the end": {"offset": str(len(PAYLOAD))},
    "offset near the end": {"offset": str(len(PAYLOAD) - 4)},
    "negative length": {"length": "-1"},
    "length too short": {"length": "4"},
    "length too long": {"length": str(len(PAYLOAD) + 4)},
    "huge length": {"length": str(1 << 60)},
    "empty length": {"length": ""},
    "unknown key": {"mode": "rw"},
    "dunder key": {"__class__": "x"},
    "base path": {"basepath": "/"},
    "wrong checksum": {"checksum": "0" * 40},
}


@pytest.mark.parametrize("name", list(NUMBERS))
def test_offsets_lengths_and_keys(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "model", model_of(weights=(external(**NUMBERS[name]),)))
    message = refused(path, "w.bin" if name != "wrong checksum" else "none")
    assert "w" in message


def test_repeated_keys_are_refused(tmp_path: Path) -> None:
    tensor = external()
    tensor.external_data.add(key="location", value="../other.bin")
    assert "twice" in refused(written(tmp_path / "model", model_of(weights=(tensor,))), "w.bin")


def test_the_right_checksum_passes(tmp_path: Path) -> None:
    checksum = hashlib.sha1(PAYLOAD, usedforsecurity=False).hexdigest()
    path = written(tmp_path / "model", model_of(weights=(external(checksum=checksum),)))
    assert np.array_equal(read_onnx(path).graph.initializers["w"].const_value.numpy(), WEIGHT)


def test_a_cut_or_missing_file(tmp_path: Path) -> None:
    path = written(tmp_path / "model", model_of(weights=(external(),)))
    (path.parent / "w.bin").write_bytes(PAYLOAD[:-1])
    assert f"which has {len(PAYLOAD) - 1}" in refused(path, "w.bin")
    (path.parent / "w.bin").unlink()
    assert "No such file" in refused(path, "w.bin")


def test_all_problems_come_in_one_message(tmp_path: Path) -> None:
    weights = tuple(external(f"../{i}", name=f"w{i}") for i in range(5))
    message = refused(written(tmp_path / "model", model_of(weights=weights)))
    assert "5 problems" in message


def constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["w"], name="held", value=tensor)


PRODUCT = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")


def in_constant() -> onnx.ModelProto:
    return model_of(constant(external(f"../{SECRET}")), PRODUCT)


def in_function() -> onnx.ModelProto:
    model = model_of(helper.make_node("F", ["x"], ["y"], name="call", domain="local"))
    body = [constant(external(f"../{SECRET}")), PRODUCT]
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "F", ["x"], ["y"], body, imports))
    model.opset_import.append(helper.make_opsetid("local", 1))
    return model


def in_function_default() -> onnx.ModelProto:
    model = in_function()
    del model.functions[0].node[0]
    default = helper.make_attribute("value", external(f"../{SECRET}"))
    model.functions[0].attribute_proto.append(default)
    return model


def in_branch() -> onnx.ModelProto:
    inner = [constant(external(f"../{SECRET}")), helper.make_node("MatMul", ["x", "w"], ["z"])]
    branch = helper.make_graph(inner, "branch", [], [onnx.ValueInfoProto(name="z")])
    condition = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    return model_of(condition, helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))


def in_branch_weight() -> onnx.ModelProto:
    model = in_branch()
    for attribute in model.graph.node[1].attribute:
        del attribute.g.node[0]
        attribute.g.initializer.append(external(f"../{SECRET}"))
    return model


def in_sparse(part: str, attribute: bool) -> onnx.ModelProto:
    indices = helper.make_tensor("i", TensorProto.INT64, [2], [0, 3])
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    hostile = external(f"../{SECRET}")
    if part == "indices":
        hostile.data_type = TensorProto.INT64
    sparse = onnx.SparseTensorProto(dims=[8, 4])
    sparse.values.CopyFrom(hostile if part == "values" else values)
    sparse.indices.CopyFrom(hostile if part == "indices" else indices)
    if attribute:
        return model_of(helper.make_node("Constant", [], ["w"], sparse_value=sparse), PRODUCT)
    model = model_of()
    model.graph.sparse_initializer.append(sparse)
    return model


def in_tensors_attribute() -> onnx.ModelProto:
    node = helper.make_node("Custom", ["x"], ["y"], domain="local")
    node.attribute.add(name="tables", type=onnx.AttributeProto.TENSORS).tensors.append(external(f"../{SECRET}"))
    return model_of(node)


PLACES = {
    "constant": in_constant,
    "function body": in_function,
    "function default": in_function_default,
    "branch": in_branch,
    "weight of a branch": in_branch_weight,
    "sparse values": lambda: in_sparse("values", False),
    "sparse indices": lambda: in_sparse("indices", False),
    "sparse attribute": lambda: in_sparse("values", True),
    "list of tensors": in_tensors_attribute,
}


@pytest.mark.parametrize("place", list(PLACES))
def test_the_same_rule_everywhere(place: str, tmp_path: Path) -> None:
    (tmp_path / SECRET).write_bytes(PAYLOAD)
    path = written(tmp_path / "model", PLACES[place]())
    assert SECRET in refused(path)


@pytest.mark.parametrize("place", ["weight", "constant", "function body"])
def test_bytes_and_messages_have_no_external_data(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(weights=(external(),)) if place == "weight" else PLACES[place]()
    for tensor in [t for n in [*model.graph.node, *(n for f in model.functions for n in f.node)] for t in n.attribute]:
        if tensor.HasField("t"):
            tensor.t.external_data[0].value = "w.bin"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.bin").write_bytes(PAYLOAD)
    for source in (model, model.SerializeToString()):
        with opened() as names, pytest.raises(ModelFormatError, match="give the path"):
            read_onnx(source)
        assert not [n for n in names if n.endswith("w.bin")]


def test_honest_constants_of_functions_are_read(tmp_path: Path) -> None:
    model = in_function()
    model.functions[0].node[0].attribute[0].t.external_data[0].value = "w.bin"
    x = np.ones((2, 8), np.float32)
    engine = qx.build(import_onnx(written(tmp_path / "model", model)), tune=False)
    np.testing.assert_allclose(engine.run({"x": x})["y"], x @ WEIGHT, rtol=1e-6)


def test_external_data_without_saying_so(tmp_path: Path) -> None:
    tensor = external()
    tensor.data_location = TensorProto.DEFAULT
    path = written(tmp_path / "model", model_of(weights=(tensor,)))
    assert "does not say" in refused(path, "w.bin")
    both = external()
    both.raw_data = PAYLOAD
    path = written(tmp_path / "both", model_of(weights=(both,)))
    assert "and in another file" in refused(path, "w.bin")


def test_writing_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = read_onnx(model_of(weights=(inline(),)))
    path = tmp_path / "model.onnx"
    write_onnx(model, path)
    before = path.read_bytes()

    def failing(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", failing)
    with pytest.raises(QontextError, match="No space left"):
        write_onnx(model, path, "w.data")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_written_external_data_come_back(tmp_path: Path) -> None:
    big = np.arange(4096, dtype=np.float32).reshape(8, 512)
    model = read_onnx(model_of(weights=(onnx.numpy_helper.from_array(big, "w"),)))
    write_onnx(model, tmp_path / "model.onnx", "w.data")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "w.data"]
    assert (tmp_path / "w.data").stat().st_size == big.nbytes
    again = read_onnx(tmp_path / "model.onnx")
    assert np.array_equal(again.graph.initializers["w"].const_value.numpy(), big)
    # Over the file that the model itself is mapped from.
    write_onnx(again, tmp_path / "model.onnx", "w.data")
    assert np.array_equal(read_onnx(tmp_path / "model.onnx").graph.initializers["w"].const_value.numpy(), big)
    with pytest.raises(QontextError, match="the name of another file"):
        write_onnx(again, tmp_path / "model.onnx", "../w.data")
