"""A fixed slice of the fuzzing in every run, and a longer one, in watched processes, among the slow tests."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from . import cases, seeds
from .mutate import mutate_bytes, mutate_json, mutate_onnx
from .targets import TARGETS

SLICE = {"onnx": 150, "safetensors": 100, "config": 100, "tokenizer": 200, "engine": 200, "inputs": 400}


@pytest.mark.parametrize("target", TARGETS)
def test_a_fixed_slice(target: str) -> None:
    outcomes = [cases.run_case(target, 1, number) for number in range(SLICE[target])]
    found = [f"case {number}: {o.problem}" for number, o in enumerate(outcomes) if o.problem]
    assert not found, f"python -m tests.fuzz --target {target} --seed 1 --case N; " + "\n".join(found)
    assert any(o.refused for o in outcomes), "nothing was refused: the mutations do not reach the reader"


def test_seeds_are_valid(tmp_path: Path) -> None:
    """What is mutated is itself taken: otherwise everything would be refused at the first check."""
    import qontext as qx
    from qontext.tasks.tokenizer import Tokenizer

    seeds.write_folder(tmp_path)
    assert qx.import_model(tmp_path).task == "fill-mask"
    for data in seeds.onnx_models():
        assert qx.build(qx.import_model(data), tune=False).output_names == ["y"]
    for text in seeds.tokenizers():
        assert Tokenizer(text).encode(["ab"])[0].ids


def test_a_case_is_the_same_every_time() -> None:
    for mutate, seed in ((mutate_bytes, b"some bytes"), (mutate_onnx, seeds.onnx_models()[0])):
        assert [mutate(seed, Random(i)) for i in range(30)] == [mutate(seed, Random(i)) for i in range(30)]
    assert len({mutate_json('{"a": [1, 2], "b": {"c": "d"}}', Random(i)) for i in range(50)}) > 20


def test_what_escapes_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(random: Random, folder: Path) -> tuple[bytes, object]:
        return b"x", lambda: {}["missing"]

    monkeypatch.setitem(TARGETS, "broken", broken)
    assert cases.run_case("broken", 0, 0).problem.startswith("KeyError at test_fuzz.py")


@pytest.mark.slow
def test_a_minute_in_watched_processes() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", "60", "--seed", "2"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 findings") == len(TARGETS)
