"""The command line as a user meets it: text, JSON, exit codes, nothing but results on stdout."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers as tf


def qontext(*arguments, stdin=""):
    command = [sys.executable, "-W", "ignore", "-c", "from qontext.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "river", "is", "long", "old", "."]
    config = tf.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=24,
    )  # fmt: skip
    tf.BertForMaskedLM(config).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(words) + "\n")
    return path


def test_fill_mask_text_and_json(folder):
    plain = qontext("fill-mask", "the river is [MASK].", "--model", folder, "--top", "3")
    assert plain.returncode == 0, plain.stderr
    assert len(plain.stdout.splitlines()) == 3
    found = json.loads(qontext("fill-mask", "the river is [mask].", "-m", folder, "-k", "3", "--json").stdout)
    assert [list(row) for row in found["candidates"]] == [["token", "probability", "text"]] * 3
    assert plain.stdout.split()[1] == found["candidates"][0]["token"]


def test_texts_from_standard_input(folder):
    done = qontext("fill-mask", "--model", folder, "--json", stdin="the [MASK] is old.\nthe river is [MASK].\n")
    assert len(json.loads(done.stdout)["candidates"]) == 2


def test_build_run_explain_round_trip(folder, tmp_path):
    engine = tmp_path / "m.qx"
    built = qontext("build", folder, "-o", engine, "--no-tune", "--json", "--verbose", "--onnx", tmp_path / "m.onnx")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["steps"] > 5
    assert "qkv: 3 operators" in built.stderr or "qkv:" in built.stderr
    assert (tmp_path / "m.onnx").stat().st_size > 0
    np.savez(tmp_path / "in.npz", input_ids=np.array([[2, 5, 6, 3]]))
    ran = qontext("run", engine, "--inputs", tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["logits"]["shape"] == [1, 4, 11]
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert arrays["logits"].shape == (1, 4, 11)
    report = json.loads(qontext("explain", engine, "--json", "--batch", "1", "--length", "8").stdout)
    assert {"QKVToContext", "EmbedLayerNorm"} <= set(report["step_operators"])
    assert all(s["us"] > 0 for s in report["steps"])
    assert "Fused" in qontext("explain", engine, "--no-measure").stdout


def test_embed_writes_an_array(folder, tmp_path):
    done = qontext("embed", "the river", "long", "--model", folder, "-o", tmp_path / "v.npy")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "v.npy", allow_pickle=False).shape == (2, 32)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fill-mask", "no mask", "--model", "FOLDER"), "0 masks, expected one"),
        (("fill-mask", "x [MASK]", "--model", "/no/such/model"), "is no folder"),
        (("classify", "x", "--model", "FOLDER"), "missing: classifier.weight"),
        (("build", "FOLDER", "-o", "/no/such/dir/m.qx"), "cannot write m.qx"),
        (("build", "FOLDER", "-o", "x.qx", "--precision", "int3"), "allowed: fp32, bf16, fp16"),
        (("run", "FOLDER", "--inputs", "/no.npz"), "cannot read /no.npz"),
        (("explain", "missing.qx"), "no engine file"),
        (("bench", "giant"), "no model 'giant'"),
        (("bench", "mini", "--peer", "abacus"), "unknown peers"),
        (("frobnicate",), "No such command"),
    ],
)
def test_mistakes_exit_with_2_and_one_message(folder, arguments, words):
    done = qontext(*(folder if a == "FOLDER" else a for a in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_faults_of_ours_exit_with_1(monkeypatch, capsys):
    from qontext.cli import main as entry

    def broken():
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(entry, "app", broken)
    with pytest.raises(SystemExit) as caught:
        entry.main()
    assert caught.value.code == 1
    assert "internal error: ZeroDivisionError: a fault" in capsys.readouterr().err


def test_doctor_and_version():
    facts = json.loads(qontext("doctor", "--json").stdout)
    assert facts["threads"] >= 1 and "torch" in facts["versions"]
    assert "reason" in facts["native_kernels"]
    assert qontext("--version").stdout.startswith("qontext ")
    assert "fill-mask" in qontext("--help").stdout


@pytest.mark.slow
def test_calibrate_build_and_explain_int8(folder, tmp_path):
    samples, cache, engine = tmp_path / "samples.txt", tmp_path / "cache.json", tmp_path / "m.qx"
    samples.write_text("the river is long.\n\nthe old river is old.\n")
    done = qontext("calibrate", folder, "--data", samples, "-o", cache, "--method", "min-max", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["method"] == "min-max of 2 samples" and not found["read"] and found["layers"] >= 5
    samples.unlink()  # the second run reads the cache alone
    again = qontext("calibrate", folder, "--data", samples, "-o", cache, "--method", "min-max")
    assert again.returncode == 0 and "read, no data touched" in again.stdout
    wrong = qontext("calibrate", folder, "--data", samples, "-o", cache)
    assert wrong.returncode == 2 and "made by min-max" in wrong.stderr
    built = qontext("build", folder, "-p", "int8", "-o", engine, "--no-tune", "--calibration", cache)
    assert built.returncode == 0, built.stderr
    shown = qontext("explain", engine, "--no-measure").stdout
    assert "int8: 100.0% of the operations" in shown and "(min-max of 2 samples)" in shown
    samples.write_text("the river is long.\n")
    budget = qontext(
        "build", folder, "-p", "int8", "-o", engine, "--no-tune", "--samples", samples, "--max-error", 1e-9
    )
    assert budget.returncode == 2 and "max_error 1e-09 cannot hold" in budget.stderr
    both = qontext("build", folder, "-p", "int8", "-o", engine, "--samples", samples, "--calibration", cache)
    assert both.returncode == 2 and "not both" in both.stderr
    lost = qontext("build", folder, "-p", "int8", "-o", engine, "--samples", tmp_path / "nothing")
    assert lost.returncode == 2 and "cannot read the samples" in lost.stderr


def test_samples_as_arrays(folder, tmp_path):
    arrays, cache = tmp_path / "samples.npz", tmp_path / "cache.json"
    np.savez(arrays, input_ids=np.full((3, 7), 5), attention_mask=np.ones((3, 7), np.int64))
    done = qontext("calibrate", folder, "--data", arrays, "-o", cache, "-n", "2", "-b", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["method"] == "percentile 99.99 of 2 samples"
    np.savez(arrays, input_ids=np.full((3, 7), 5), attention_mask=np.ones((2, 7), np.int64))
    wrong = qontext("calibrate", folder, "--data", arrays, "-o", tmp_path / "other.json")
    assert wrong.returncode == 2 and "must have the sequences as their first axis" in wrong.stderr
