"""The container: every byte is covered, tensors are aligned, writing is atomic."""

import os
import random
import zipfile

import pytest
import torch

from qontext.builder.container import ALIGN, Container, write_container
from qontext.errors import EngineFileError


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        "a": torch.randn(5, 7, generator=generator),
        "b": torch.randn(33, generator=generator).to(torch.bfloat16),
        "ids": torch.arange(11),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False, True]),
        "eight": torch.randn(64, generator=generator).to(torch.float8_e4m3fn),
    }


@pytest.fixture
def path(tmp_path, tensors):
    target = tmp_path / "model.qx"
    write_container(target, {"manifest.json": b"{}", "notes.txt": b"hello"}, tensors)
    return target


def test_round_trip_is_exact(path, tensors):
    box = Container(path)
    assert box.texts["notes.txt"] == b"hello"
    assert set(box.tensors) == set(tensors)
    for name, tensor in tensors.items():
        assert box.tensors[name].dtype == tensor.dtype
        assert box.tensors[name].shape == tensor.shape
        assert torch.equal(box.tensors[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))
    assert box.tensors["scalar"].item() == 3.5


def test_it_is_a_plain_uncompressed_zip_with_aligned_tensors(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
    for name, tensor in Container(path).tensors.items():
        assert tensor.data_ptr() % ALIGN == 0 or tensor.numel() == 0, name


def test_safetensors_reads_the_weights(path, tensors):
    from safetensors.torch import load

    with zipfile.ZipFile(path) as archive:
        found = load(archive.read("weights.safetensors"))
    assert torch.equal(found["a"], tensors["a"])


def test_equal_content_gives_equal_files(tmp_path, path, tensors):
    again = tmp_path / "again.qx"
    write_container(again, {"manifest.json": b"{}", "notes.txt": b"hello"}, tensors)
    assert again.read_bytes() == path.read_bytes()


def test_every_flipped_bit_is_noticed(tmp_path, path):
    data = path.read_bytes()
    rng = random.Random(0)
    broken = tmp_path / "broken.qx"
    for position in rng.sample(range(len(data)), min(1000, len(data))):
        flipped = bytearray(data)
        flipped[position] ^= 1 << rng.randrange(8)
        broken.write_bytes(flipped)
        with pytest.raises(EngineFileError):
            Container(broken)


def test_every_truncation_is_noticed(tmp_path, path):
    data = path.read_bytes()
    broken = tmp_path / "broken.qx"
    for size in range(0, len(data), 97):
        broken.write_bytes(data[:size])
        with pytest.raises(EngineFileError) as caught:
            Container(broken)
        assert "broken.qx" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x80\x02}q\x00.", "no engine file"),
        (b"<!DOCTYPE html><html>", "no engine file"),
        (b"PK\x03\x04 and then nothing of use", "truncated or altered"),
    ],
)
def test_foreign_files_are_named(tmp_path, content, words):
    path = tmp_path / "foreign.qx"
    path.write_bytes(content)
    with pytest.raises(EngineFileError, match=words):
        Container(path)


def test_text_mode_transfer_is_named(tmp_path, path):
    mangled = tmp_path / "mangled.qx"
    mangled.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(EngineFileError):
        Container(mangled)


def test_a_failed_write_leaves_the_old_file(tmp_path, path, tensors, monkeypatch):
    before = path.read_bytes()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineFileError, match="No space left"):
        write_container(path, {"manifest.json": b"{}"}, tensors)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.qx"]


def test_a_missing_folder_is_an_error(tmp_path, tensors):
    with pytest.raises(EngineFileError, match="cannot write"):
        write_container(tmp_path / "no" / "model.qx", {}, tensors)
