"""Choosing kernels by time."""

import pytest
import torch

from qontext.builder import race
from qontext.builder.samples import sample_inputs
from qontext.builder.tune import Tuner, call_key, machine_key
from qontext.graph.dims import symbol
from qontext.ops.call import Call, Device, Kernel, Operand
from qontext.ops.gelu.op import OP as GELU

CALL = Call(
    "Gelu",
    (Operand("float32", (symbol("T"), 8)), None),
    (Operand("float32", (symbol("T"), 8)),),
    {"approximate": "none"},
)


class Clock:
    """Time that passes when kernels run, and not otherwise."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


CLOCK = Clock()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(race.time, "perf_counter", CLOCK)


def kernel(name, seconds):
    def bind(call):
        def run(inputs, out=None):
            CLOCK.now += seconds
            return torch.nn.functional.gelu(inputs[0])

        return run

    return Kernel(name, "cpu", lambda call: None, bind)


RIVALS = [kernel("slow", 0.004), kernel("fast", 0.0005), kernel("reference", 0)]


def test_the_fastest_wins_and_the_reference_does_not_compete():
    tuner = Tuner(repeats=3)
    chosen, timings = tuner.choose(GELU, CALL, RIVALS)
    assert chosen.name == "fast"
    assert [name for name, _ in timings] == ["fast", "slow"]
    assert timings[0][1] < timings[1][1]
    assert tuner.timed == 1


def test_the_first_of_equals_wins():
    tuner = Tuner(repeats=1)
    tuner.choose(GELU, CALL, RIVALS)
    ((key, _),) = tuner.records[machine_key(CALL.device)].items()
    for first, wanted in ((102.0, "slow"), (104.0, "fast")):
        tuner.records[machine_key(CALL.device)][key] = [["fast", 100.0], ["slow", first]]
        chosen, timings = tuner.choose(GELU, CALL, RIVALS)
        assert chosen.name == wanted
        assert timings[0] == ("fast", 100.0)


def test_equal_calls_are_timed_once_and_records_are_reused():
    tuner = Tuner(repeats=1)
    tuner.choose(GELU, CALL, RIVALS)
    tuner.choose(GELU, CALL, RIVALS)
    assert tuner.timed == 1
    again = Tuner(tuner.records, repeats=1)
    assert again.choose(GELU, CALL, RIVALS)[0].name == "fast"
    assert again.timed == 0


def test_records_of_another_machine_or_of_kernels_that_are_gone_are_not_used():
    records = {machine_key(Device("cpu", name="another")): {call_key(CALL): [["slow", 1.0], ["fast", 2.0]]}}
    tuner = Tuner(records, repeats=1)
    assert tuner.choose(GELU, CALL, RIVALS)[0].name == "fast"
    mine = machine_key(CALL.device)
    tuner = Tuner({mine: {call_key(CALL): [["gone", 1.0]]}}, repeats=1)
    assert tuner.choose(GELU, CALL, RIVALS)[0].name == "fast"


def test_without_repeats_the_first_that_can_is_taken():
    tuner = Tuner(repeats=0)
    assert tuner.choose(GELU, CALL, RIVALS)[0].name == "slow"
    assert tuner.timed == 0


def test_keys_tell_calls_apart():
    wide = Call("Gelu", (Operand("float32", (symbol("T"), 16)), None), CALL.outputs, CALL.attributes)
    tanh = Call("Gelu", CALL.inputs, CALL.outputs, {"approximate": "tanh"})
    half = Call("Gelu", (Operand("bfloat16", (symbol("T"), 8)), None), CALL.outputs, CALL.attributes, Device("cpu"))
    assert len({call_key(c) for c in (CALL, wide, tanh, half)}) == 4


def test_sample_inputs_fit_the_call():
    (x, bias) = sample_inputs(GELU, CALL)
    assert x.shape == (512, 8) and bias is None
