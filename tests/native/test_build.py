"""The build puts the library in place whole: running processes keep theirs, starting ones find one."""

import mmap
import runpy
import threading
from pathlib import Path
from typing import Any

import pytest
import setuptools


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of setup.py, without a run of setuptools."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    return runpy.run_path(str(Path(__file__).parents[2] / "setup.py"))


def test_a_mapped_library_stays_what_it_was(build: dict[str, Any], tmp_path: Path) -> None:
    old, fresh = tmp_path / "libqontext.so", tmp_path / "built"
    old.write_bytes(b"old" * 5000)
    fresh.write_bytes(b"new" * 4000)
    with old.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        build["put_in_place"](fresh, old)
        assert mapped[:] == b"old" * 5000
    assert old.read_bytes() == b"new" * 4000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["built", "libqontext.so"]


def test_no_one_sees_half_a_library(build: dict[str, Any], tmp_path: Path) -> None:
    place, builds = tmp_path / "libqontext.so", [tmp_path / "a", tmp_path / "b"]
    for path, letter in zip(builds, (b"a", b"b"), strict=True):
        path.write_bytes(letter * 200_000)
    build["put_in_place"](builds[0], place)
    seen, done = set(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                content = place.read_bytes()
            except FileNotFoundError:
                content = b""
            seen.add((len(content), content[:1] + content[-1:]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for turn in range(100):
        build["put_in_place"](builds[turn % 2], place)
    done.set()
    watcher.join()
    assert seen <= {(200_000, b"aa"), (200_000, b"bb")}


def test_a_failed_copy_leaves_the_old_one(build: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "libqontext.so"
    place.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        build["put_in_place"](tmp_path / "never built", place)
    assert [p.name for p in tmp_path.iterdir()] == ["libqontext.so"]
    assert place.read_bytes() == b"old"
