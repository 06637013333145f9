"""Timings kept on disk."""

import json
import threading

import pytest

from qontext.builder import tuning_cache
from qontext.builder.tuning_cache import cache_folder, read_timings, write_timings

ROWS = {"call": [["fast", 1.5], ["slow", 2], ["broken", -1.0]]}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("QONTEXT_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_what_is_written_is_read_by_machine():
    assert read_timings("a machine") == ({}, "")
    assert write_timings("a machine", ROWS) == ""
    assert read_timings("a machine") == (ROWS, "")
    assert read_timings("another") == ({}, "")


def test_rows_are_added_to_what_is_there():
    write_timings("m", ROWS)
    write_timings("m", {"other": [["x", 3.0]], "call": [["fast", 9.0]]})
    assert read_timings("m")[0] == {"other": [["x", 3.0]], "call": [["fast", 9.0]]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b'"text"',
        b'{"version": 2}',
        b'{"version": 99, "machine": "m", "timings": {}}',
        b'{"version": 2, "machine": "other", "timings": {}}',
        b'{"version": 2, "machine": "m", "timings": []}',
        b'{"version": 2, "machine": "m", "timings": {"call": [["k"]]}}',
        b'{"version": 2, "machine": "m", "timings": {"call": [["k", "1.0"]]}}',
        b'{"version": 2, "machine": "m", "timings": {"call": [[1, 1.0]]}}',
        b'{"version": 2, "machine": "m", "timings": {"call": [["k", true]]}}',
        b'{"version": 2, "machine": "m", "timings": {"call": {}}}',
    ],
)
def test_damaged_files_are_told_and_ignored_and_replaced(content):
    write_timings("m", ROWS)
    path = tuning_cache._file("m")
    path.write_bytes(content)
    rows, message = read_timings("m")
    assert rows == {}
    assert path.name in message and "timed anew" in message
    assert write_timings("m", ROWS) == ""
    assert read_timings("m") == (ROWS, "")


def test_a_folder_that_cannot_be_written_is_told(folder, monkeypatch):
    blocked = folder / "file"
    blocked.write_text("")
    monkeypatch.setenv("QONTEXT_CACHE_DIR", str(blocked))
    assert "timings were not cached" in write_timings("m", ROWS)


def test_writers_at_once_leave_one_whole_file(folder):
    threads = [threading.Thread(target=write_timings, args=("m", {f"call {n}": [["k", n]]})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows, message = read_timings("m")
    assert message == "" and rows
    assert [p.name for p in (folder / "tuning").iterdir()] == [tuning_cache._file("m").name]


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("QONTEXT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "qontext"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "qontext"


def test_files_hold_plain_json(folder):
    write_timings("m", ROWS)
    held = json.loads(tuning_cache._file("m").read_text())
    assert held == {"version": 2, "machine": "m", "timings": ROWS}
