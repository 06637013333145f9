"""Rows 1 to 5 of the hardening list: damaged and hostile safetensors files."""

import json
import os
import struct
import time
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file

from qontext.errors import ModelFormatError
from qontext.importers.huggingface.files import read_weights
from qontext.importers.safetensors_file import read_safetensors


def write(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_safetensors_wrote(tmp_path):
    tensors = {
        "a": torch.randn(3, 5),
        "half": torch.randn(7).half(),
        "brain": torch.randn(7).bfloat16(),
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 4),
        "ids": torch.arange(5),
        "flags": torch.tensor([True, False]),
    }
    save_file(tensors, tmp_path / "m.safetensors", metadata={"format": "pt"})
    found = read_safetensors(tmp_path / "m.safetensors")
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_every_cut_is_refused_quickly_and_names_the_file(tmp_path):
    save_file({f"t{i}": torch.randn(64, 64) for i in range(8)}, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for size in [0, 3, 8, 50, 200, *range(1024, len(data), 1024)]:
        cut.write_bytes(data[:size])
        start = time.process_time()
        with pytest.raises(ModelFormatError, match=r"cut\.safetensors"):
            read_safetensors(cut)
        assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("header", "length", "words"),
    [
        ({}, 2**63, "claims 9223372036854775808 bytes"),
        ({}, 101_000_000, "claims 101000000 bytes"),
        (b"{" + b" " * 16_000_000 + b"}", None, "claims 16000002 bytes.*at most 16000000 are allowed"),
        (b"\xff\xfe{}", None, "no valid JSON"),
        (b"{not json", None, "no valid JSON"),
        (b"[1, 2]", None, "expected an object"),
        (b"[" * 5000, None, "full of brackets"),
        (b"[" * 3, None, "no valid JSON"),
        (b'{"a": 1, "a": 2}', None, "stands twice"),
    ],
)
def test_bad_headers(tmp_path, header, length, words):
    with pytest.raises(ModelFormatError, match=words):
        read_safetensors(write(tmp_path / "m.safetensors", header, b"", length))


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        ({"a": entry(), "b": entry(offsets=(4, 12))}, 12, "begins at 4, inside the one before it"),
        ({"a": entry(), "b": entry(offsets=(12, 20))}, 20, "4 bytes before tensor 'b' belong to no tensor"),
        ({"a": entry(offsets=(8, 0))}, 8, "lies at bytes 8 to 0"),
        ({"a": entry(offsets=(-8, 0))}, 8, "expected two whole numbers"),
        ({"a": entry(offsets=(0, 2**62))}, 8, "the file has 8"),
        ({"a": entry(shape=(2**31, 2**31))}, 8, "needs 18446744073709551616 bytes, 8 are given"),
        ({"a": entry(shape=(2**32, 2**32))}, 8, "too large to address"),
        ({"a": entry(shape=(0, 2**62, 2**62), offsets=(0, 0))}, 0, "too large to address"),
        ({"a": entry(shape=(10**4000,) * 2)}, 8, "expected up to 16 whole numbers"),
        ({"a": entry(dtype=["F32"])}, 8, r"has dtype \"\['F32'\]\""),
        ({"a": entry(dtype=None)}, 8, "has dtype 'None'"),
        ({"a": entry(shape=(3,))}, 8, "needs 12 bytes, 8 are given"),
        ({"a": entry(shape=(-2,))}, 8, "expected up to 16 whole numbers"),
        ({"a": entry(shape=(True,))}, 8, "expected up to 16 whole numbers"),
        ({"a": entry(dtype="F99")}, 8, "has dtype 'F99'"),
        ({"a": {"dtype": "F32"}}, 8, "not described by"),
        ({"a": entry()}, 16, "take 8 bytes, the file has 16"),
        (
            {"a": entry(), "b": entry(dtype="F99", offsets=(8, 16)), "c": entry(shape=(9,), offsets=(16, 24))},
            24,
            "2 problems",
        ),
    ],
)
def test_bad_entries_are_refused_before_mapping(tmp_path, header, data, words, monkeypatch):
    import numpy as np

    monkeypatch.setattr(np, "memmap", lambda *a, **k: pytest.fail("mapped before it was checked"))
    with pytest.raises(ModelFormatError, match=words):
        read_safetensors(write(tmp_path / "m.safetensors", header, b"\0" * data))


@pytest.mark.parametrize("filler", [b"{}", b"[]", b'{"b":[]}'])
def test_headers_full_of_brackets_take_no_memory(tmp_path, filler):
    count = 15_000_000 // (len(filler) + 1)
    text = b'{"a":[' + b",".join([filler] * count) + b"]}"
    path = write(tmp_path / "m.safetensors", text)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFormatError, match="full of brackets"):
            read_safetensors(path)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(text)
    finally:
        tracemalloc.stop()


def test_many_small_tensors_are_read(tmp_path):
    save_file({str(i): torch.zeros(()) for i in range(500)}, tmp_path / "m.safetensors")
    assert len(read_safetensors(tmp_path / "m.safetensors")) == 500


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/../../x.safetensors", "gone.safetensors", "link.safetensors"]
)
def test_shards_stay_in_the_folder(tmp_path, name):
    folder = tmp_path / "deep" / "er" / "model"
    folder.mkdir(parents=True)
    save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors")
    os.symlink(tmp_path / "x.safetensors", folder / "link.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelFormatError, match=r"leads out of|is missing|link out of") as caught:
        read_weights(folder)
    assert str(tmp_path) not in str(caught.value)


def test_shards_are_joined_and_doubles_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "1.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    assert set(read_weights(tmp_path)) == {"a", "b"}
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "2.safetensors"}}))
    with pytest.raises(ModelFormatError, match="'c' is not in 2"):
        read_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": [1]}))
    with pytest.raises(ModelFormatError, match="no weight_map"):
        read_weights(tmp_path)
