"""Names and places of models: folders, the hub's cache, and the hub without a network."""

import json
import os
import shutil
import socket
from pathlib import Path

import huggingface_hub.constants
import pytest
from safetensors.torch import load_file, save_file
from test_parity import saved

import qontext as qx
from qontext.errors import ArgumentError, ModelFormatError
from qontext.importers.huggingface import hub
from qontext.importers.huggingface.files import read_weights

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """The hub's cache in an empty folder, HF_HUB_OFFLINE=1, and no network at all."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("a connection was made"))
    return cache


def cached(cache, repository, family="Bert"):
    """A snapshot as the hub's client lays it out: links to blobs."""
    home = cache / f"models--{repository.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMIT
    saved(family, "Model", home / "made")
    for folder in (snapshot, home / "blobs", home / "refs"):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    for path in (home / "made").iterdir():
        shutil.move(path, home / "blobs" / path.name)
        os.symlink(f"../../blobs/{path.name}", snapshot / path.name)
    return snapshot


def test_a_hub_model_that_is_not_cached_says_so_offline(offline):
    with pytest.raises(
        ArgumentError, match=r"'owner/name' is no local folder, and could not be downloaded.*give a path"
    ):
        qx.import_model("owner/name")


def test_hub_models_are_named_after_their_id(offline):
    snapshot = cached(offline, "owner/name")
    assert qx.import_model("owner/name").name == "owner/name"
    assert qx.import_model(snapshot).name == "owner/name"
    cached(offline, "single")
    assert qx.import_model("single").name == "single"


def test_folders_are_named_after_themselves(tmp_path, monkeypatch):
    saved("Bert", "Model", tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    assert [qx.import_model(s).name for s in (".", Path("."), "../mine", "./")] == ["mine"] * 4


@pytest.mark.parametrize(
    "source",
    ["./nope", "../nope", "nope/", "/nope", "/owner/name", Path("nope"), Path("owner/name"), "a/b/c", "-x/y", ""],
)
def test_paths_are_never_tried_as_hub_ids(source, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_download", lambda *a: pytest.fail("the hub was asked"))
    with pytest.raises((ArgumentError, ModelFormatError), match=r"is no folder|no config\.json|the source is empty"):
        qx.import_model(source)


def test_shards_may_be_links_to_blobs_in_snapshots_only(offline, tmp_path):
    snapshot = cached(offline, "owner/name")
    weights = load_file(snapshot / "model.safetensors")
    (snapshot / "model.safetensors").unlink()
    blob = snapshot.parents[1] / "blobs" / "shard"
    save_file(weights, blob)
    (snapshot / "1.safetensors").symlink_to("../../blobs/shard")
    index = json.dumps({"weight_map": dict.fromkeys(weights, "1.safetensors")})
    (snapshot / "model.safetensors.index.json").write_text(index)
    assert set(read_weights(snapshot)) == set(weights)
    for place in ("snapshots/latest", "models/" + COMMIT):
        other = tmp_path / "home" / place
        other.mkdir(parents=True)
        (tmp_path / "home" / "blobs").mkdir(exist_ok=True)
        shutil.copy(blob, tmp_path / "home" / "blobs" / "shard")
        (other / "1.safetensors").symlink_to("../../blobs/shard")
        (other / "model.safetensors.index.json").write_text(index)
        with pytest.raises(ModelFormatError, match="is a link out of the folder"):
            read_weights(other)
