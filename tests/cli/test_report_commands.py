"""explain and compare on the command line."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
from test_cli import folder  # noqa: F401

from qontext.cli import main as entry


class Done:
    """What a command left: exit code, stdout, stderr."""

    def __init__(self, code, out, err):
        self.returncode, self.stdout, self.stderr = code, out, err


def qontext(*arguments):
    """Runs a command in this process, which spares seconds of imports each time."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["qontext", *map(str, arguments)])
        try:
            entry.main()
        except SystemExit as stop:
            code = stop.code or 0
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def report(folder, tmp_path_factory):  # noqa: F811
    path = tmp_path_factory.mktemp("report") / "r.html"
    return qontext("explain", folder, "--html", path, "-b", "1", "-s", "8"), path


def test_explain_writes_a_page(report):
    done, path = report
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "wrote" in done.stderr
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "QKVToContext" in page


def test_pictures(folder, tmp_path):  # noqa: F811
    for name, stage, words in (("a.svg", "imported", "Attention"), ("a.dot", "fused", "QKVToContext")):
        done = qontext("explain", folder, "--picture", tmp_path / name, "--stage", stage, "--only", "attention")
        assert done.returncode == 0, done.stderr
        assert words in (tmp_path / name).read_text(encoding="utf-8")


def test_a_malformed_model_gets_a_page_and_exit_code_2(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"\x08\x07garbage")
    done = qontext("explain", tmp_path / "bad.onnx", "--html", tmp_path / "r.html")
    assert done.returncode == 2 and "Traceback" not in done.stderr and "which says what is wrong" in done.stderr
    assert "What is wrong" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_compare_with_arrays_texts_and_nothing(folder, tmp_path):  # noqa: F811
    np.savez(tmp_path / "in.npz", input_ids=np.array([[2, 5, 6, 3]]))
    (tmp_path / "in.txt").write_text("the river is long .\nold\n")
    engine = tmp_path / "m.qx"
    assert qontext("build", folder, "-o", engine, "--no-tune").returncode == 0
    found = json.loads(qontext("compare", folder, engine, "--data", tmp_path / "in.npz", "--json").stdout)
    assert found["ok"] and found["compared"] > 5 and found["inputs"].startswith("input_ids [1, 4]")
    done = qontext("compare", folder, "build", "-i", tmp_path / "in.txt", "-p", "bf16")
    assert done.returncode == 0, done.stderr
    assert "input_ids [2, 7]" in done.stdout and "all outputs are within the tolerance" in done.stdout
    wrong = qontext("compare", folder, engine, "--tolerance", "1e-12")
    assert wrong.returncode == 1 and "bisection" in wrong.stdout and wrong.stderr == ""


def test_against_torch(folder):  # noqa: F811
    done = qontext("explain", folder, "--against", "torch", "-b", "1", "-s", "8")
    assert done.returncode == 0, done.stderr
    assert "PyTorch eager" in done.stdout and "layer 0" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("explain", "FOLDER", "--picture", "x.png"), "must be .svg or .dot"),
        (("explain", "FOLDER", "--stage", "half"), "allowed: imported, fused"),
        (("explain", "FOLDER", "--html", "/no/such/dir/r.html", "--no-measure"), "cannot write r.html"),
        (("explain", "FOLDER", "--picture", "x.svg", "--only", "nowhere"), "no module or node is called"),
        (("compare", "FOLDER", "missing.qx"), "no engine file"),
        (("compare", "FOLDER", "build", "--data", "/no.npz"), "cannot read /no.npz"),
    ],
)
def test_mistakes(folder, arguments, words):  # noqa: F811
    done = qontext(*(folder if a == "FOLDER" else a for a in arguments))
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
