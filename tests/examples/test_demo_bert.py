"""The scripts with the flags of demo/BERT, on tiny models."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import qontext as qx


@pytest.fixture(scope="module")
def demo(run_example):
    """Runs a script of examples/demo_bert."""

    def run(script, *arguments, fails=False):
        done = run_example("demo_bert", script, *arguments)
        assert (done.returncode == 2) == fails, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def engine_file(answering, demo, tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "squad.qx"
    demo("builder.py", "-c", answering, "-b", 1, "-b", 4, "-s", 16, "-s", 40, "-o", path)
    return path


def steps(path):
    return {step.op for step in qx.load(path).compiled.programs["encode"].steps}


def test_the_padded_builder_takes_the_largest_sizes(engine_file):
    engine = qx.load(engine_file)
    assert (engine.settings.max_tokens, engine.max_length, engine.precision) == (160, 40, "fp32")
    assert "PackTokens" not in steps(engine_file)
    assert engine.run({"input_ids": np.ones((4, 40), np.int64)})["start_logits"].shape == (4, 40)
    with pytest.raises(qx.errors.InputError, match="the engine takes at most 40"):
        engine.run({"input_ids": np.ones((1, 41), np.int64)})


def test_the_packed_builder_with_a_state_dict_of_its_own(answering, engine_file, demo, tmp_path):
    """-pt gives other weights than the config folder holds, in bf16."""
    weights = {name: tensor * 1.01 for name, tensor in load_file(answering / "model.safetensors").items()}
    save_file(weights, tmp_path / "weights.safetensors", {"format": "pt"})
    path = tmp_path / "packed.qx"
    done = demo("builder_varseqlen.py", "-pt", tmp_path / "weights.safetensors", "-c", answering, "-b", 4, "-s", 40,
                "-o", path, "--bf16")  # fmt: skip
    assert "up to 40 tokens a sequence and 160 tokens a batch, packed" in done.stdout
    assert "PackTokens" in steps(path)
    packed, padded = qx.load(path), qx.load(engine_file)
    assert packed.precision == "bf16"
    assert packed.tokenizer == padded.tokenizer
    ids = {"input_ids": np.arange(20, dtype=np.int64).reshape(2, 10)}
    assert not np.array_equal(packed.run(ids)["start_logits"], padded.run(ids)["start_logits"])


def test_onnx_models_get_the_tokenizer_of_the_config_folder(answering, demo, tmp_path):
    engine = qx.build(answering, tune=False)
    engine.save_onnx(tmp_path / "model.onnx")
    done = demo("builder.py", "-x", tmp_path / "model.onnx", "-c", answering, "-s", 32, "-f", "-o", tmp_path / "m.qx")
    assert "fp16" in done.stdout
    assert qx.load(tmp_path / "m.qx").tokenizer == engine.tokenizer
    demo("builder.py", "-x", tmp_path / "model.onnx", "-v", answering / "vocab.txt", "-s", 32, "-o", tmp_path / "v.qx")
    pieces = json.loads(qx.load(tmp_path / "v.qx").tokenizer)["model"]["vocab"]
    assert pieces == json.loads(engine.tokenizer)["model"]["vocab"]


def test_the_timing_cache_is_written_and_read(answering, demo, tmp_path):
    cache = tmp_path / "timings.json"
    arguments = ("-c", answering, "-s", 32, "-o", tmp_path / "m.qx", "-tcf", cache)
    first = demo("builder.py", *arguments)
    assert int(re.search(r"(\d+) calls timed anew", first.stdout)[1]) > 0
    (timings,) = json.loads(cache.read_text()).values()
    assert any(call.startswith("Linear(") for call in timings)
    assert "0 calls timed anew" in demo("builder.py", *arguments).stdout
    for wrong in ("[1]", '{"cpu": {"Linear": [["torch", "fast"]]}}', "not JSON"):
        cache.write_text(wrong)
        assert re.search(r"^error: -tcf \S+timings.json: ", demo("builder.py", *arguments, fails=True).stderr)
        assert cache.read_text() == wrong, "a file of another kind is overwritten"


def test_flags_without_effect_say_why(answering, demo, tmp_path):
    flags = ("-t", "-w", 2500, "-g", "--use-v3-plugins")
    done = demo("builder.py", "-c", answering, "-s", 32, "-o", tmp_path / "m.qx", *flags)
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["-t", "-w", "-g", "--use-v3-plugins"]


def test_flags_that_ask_for_what_is_not_there_are_all_refused(demo, tmp_path):
    flags = ("-iln", "-imh", "-sp", "-j", "dev.json", "-n", 10, "-p", "cache", "-m", "model.ckpt")
    done = demo("builder.py", "-o", tmp_path / "m.qx", *flags, "--distributive_independence", fails=True)
    named = {line.split(":")[0].removeprefix("  - ") for line in done.stderr.splitlines()[1:]}
    assert named == {"-iln", "-imh", "-sp", "-j", "-n", "-p", "-m", "--distributive_independence"}
    done = demo("builder_varseqlen.py", "-pkl", "m.pkl", "-il", "--megatron", "-o", tmp_path / "m.qx", fails=True)
    assert "-pkl: pickles can run code and are never opened" in done.stderr
    assert not (tmp_path / "m.qx").exists()


@pytest.mark.slow
def test_int8_by_scales_of_the_run_and_by_a_calibration(answering, demo, tmp_path):
    done = demo("builder.py", "-c", answering, "-s", 32, "-i", "-imh", "-iln", "-o", tmp_path / "a.qx")
    assert ", int8, up to 32 tokens" in done.stdout and done.stderr.startswith("-iln: ")
    operators = {s.op for s in qx.load(tmp_path / "a.qx").compiled.programs["encode"].steps}
    assert {"QuantLinear", "QuantQKVToContext"} <= operators
    squad, cache = tmp_path / "squad.json", tmp_path / "scales.json"
    entries = [{"id": str(i), "question": QUESTION, "answers": []} for i in range(2)]
    squad.write_text(json.dumps({"data": [{"paragraphs": [{"context": PASSAGE, "qas": entries}]}]}))
    arguments = ("-c", answering, "-s", 32, "-i", "-j", squad, "-n", 1, "-p", cache, "-o", tmp_path / "b.qx")
    assert "scales from percentile 99.99 of 1 samples" in demo("builder.py", *arguments).stdout
    squad.unlink()
    assert "scales from percentile 99.99 of 1 samples" in demo("builder.py", *arguments).stdout
    layers = qx.load(tmp_path / "b.qx").compiled.quantised
    assert all("percentile 99.99 of 1 samples" in layer.scale for layer in layers)
    for said, flags in {"give -i too": ("-p", cache), "there is no calibration cache": ("-i", "-p", squad)}.items():
        assert said in demo("builder.py", "-c", answering, "-o", tmp_path / "c.qx", *flags, fails=True).stderr


def test_wrong_sources_end_in_one_error(answering, bert, demo, tmp_path):
    torch.save({}, tmp_path / "model.bin")
    cases = {
        "never opened": ("-pt", tmp_path / "model.bin", "-c", answering),
        "there is no such file": ("-pt", tmp_path / "none.safetensors", "-c", answering),
        "give the folder of its config.json as -c": ("-pt", answering / "model.safetensors"),
        "no model: give -x": (),
        "positions for at most 64 tokens": ("-c", answering, "-s", 65),
        "-b 0: it must be at least 1": ("-c", answering, "-b", 0),
    }
    for said, arguments in cases.items():
        assert said in demo("builder.py", "-o", tmp_path / "m.qx", *arguments, fails=True).stderr


def test_perf_prints_average_and_percentiles(engine_file, demo):
    done = demo("perf.py", "-e", engine_file, "-b", 1, "-b", 4, "-s", 8, "-s", 40, "-i", 5, "-w", 1, "--json")
    rows = json.loads(done.stdout)
    assert [(r["batch_size"], r["sequence_length"]) for r in rows] == [(1, 8), (1, 40), (4, 8), (4, 40)]
    for row in rows:
        assert row["average_ms"] > 0
        assert row["percentile_99_ms"] >= row["percentile_95_ms"] > 0
        assert (row["iterations"], row["warm_up"]) == (5, 1)
    text = demo("perf.py", "-e", engine_file, "-i", 2, "-w", 0).stdout
    assert re.match(r"batch +1  length +40  average +[\d.]+ ms  95th +[\d.]+ ms  99th +[\d.]+ ms", text)
    assert "-d 1" in demo("perf.py", "-e", engine_file, "-d", 1, fails=True).stderr


PASSAGE = "The city Paris is the capital of France . The river Seine is of Paris . " * 6
QUESTION = "What is the capital of France ?"


def test_inference_answers_over_windows(engine_file, demo):
    engine = qx.load(engine_file)
    direct = qx.pipeline("answer", engine)(QUESTION, PASSAGE.strip(), stride=8, max_answer_tokens=5)
    arguments = ("-p", *PASSAGE.split(), "-q", *QUESTION.split(), "--doc-stride", 8, "--max-answer-length", 5)
    done = demo("inference.py", "-e", engine_file, *arguments)
    assert f"Answer: {direct[0]['text']!r} with probability {direct[0]['score'] * 100:.2f} %" in done.stdout
    # Smaller windows see less at a time, so the scores are others; a longer one than the engine's is refused.
    smaller = demo("inference.py", "-e", engine_file, *arguments, "-s", 20)
    assert f"{direct[0]['score'] * 100:.2f} %" not in smaller.stdout
    assert "-s 41" in demo("inference.py", "-e", engine_file, *arguments, "-s", 41, fails=True).stderr


def test_inference_reads_files_and_squad(engine_file, answering, demo, tmp_path):
    (tmp_path / "passage.txt").write_text("Rome is a city of Italy .")
    (tmp_path / "question.txt").write_text("What is Rome ?")
    questions = [{"id": "q1", "question": "What is Rome ?"}, {"id": "q2", "question": "What is Italy ?"}]
    squad = {"data": [{"paragraphs": [{"context": "Rome is a city of Italy .", "qas": questions}]}]}
    (tmp_path / "squad.json").write_text(json.dumps(squad))
    files = ("-pf", tmp_path / "passage.txt", "-qf", tmp_path / "question.txt", "-v", answering / "vocab.txt")
    (text,) = re.findall(r"^Answer: '(.*)' with", demo("inference.py", "-e", engine_file, *files).stdout, re.MULTILINE)
    demo("inference.py", "-e", engine_file, "-sq", tmp_path / "squad.json", "-o", tmp_path / "predictions.json")
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    assert set(predictions) == {"q1", "q2"}
    assert predictions["q1"] == text
    (tmp_path / "squad.json").write_text("[]")
    done = demo("inference.py", "-e", engine_file, "-sq", tmp_path / "squad.json", fails=True)
    assert "no SQuAD file" in done.stderr


def test_the_commands_run_by_themselves(answering, run_command, tmp_path):
    done = run_command("demo_bert", "builder_varseqlen.py", "-c", answering, "-s", 32, "-o", tmp_path / "m.qx")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'm.qx'}: ")


def test_inference_needs_a_question_answering_engine(bert, demo, tmp_path):
    qx.build(bert, tune=False).save(tmp_path / "mlm.qx")
    done = demo("inference.py", "-e", tmp_path / "mlm.qx", "-p", "a", "-q", "b", fails=True)
    assert "answer needs" in done.stderr
