"""Kernels by the number of rows."""

import pytest
import torch

from qontext.builder import ranges as module
from qontext.builder.ranges import SIZES, contest, decide, pick, rows_of
from qontext.builder.tune import Tuner, machine_key
from qontext.graph.dims import Dim, symbol
from qontext.ops.call import Call, Device, Kernel, Operand
from qontext.ops.gelu.op import OP as GELU

FAKE = Device("cuda", frozenset({"sm_90"}), "a fake", "cpu")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("QONTEXT_CACHE_DIR", str(tmp_path))


def call(*shape):
    return Call("Gelu", (Operand("float32", shape), None), (Operand("float32", shape),), {"approximate": "none"}, FAKE)


def rows(given):
    return given.inputs[0].shape[0]


def kernel(name, microseconds, least=0, most=10**9):
    """A kernel whose time is a function of rows; the races of these tests read it instead of a clock."""

    def supports(given):
        count = rows(given)
        if isinstance(count, int) and not least <= count <= most:
            return f"{count} rows, it takes {least} to {most}"
        return None

    def bind(given):
        def run(inputs, out=None):
            return torch.nn.functional.gelu(inputs[0])

        run.microseconds = microseconds
        return run

    return Kernel(name, "cuda", supports, bind)


@pytest.fixture
def race(monkeypatch):
    """Times come from the kernels' formulas; counts the races."""
    count = []

    def choose(self, op, given, rivals, size):
        count.append(size)
        return sorted(([k.name, k.bind(given).microseconds(rows(given))] for k in rivals), key=lambda r: r[1])

    monkeypatch.setattr(Tuner, "_race", choose)
    return count


def entered(*kernels, shape=None, monkeypatch):
    reference = Kernel("reference.gelu", "cuda", lambda given: None, lambda given: lambda inputs, out=None: inputs[0])

    def candidates(op, given):
        return [*(k for k in kernels if k.supports(given) is None), reference], []

    monkeypatch.setattr(module, "candidates", candidates)
    return contest(GELU, call(*(shape or (symbol("T"), 8))), late=False)


def test_the_fastest_at_each_size_gets_its_range(race, monkeypatch):
    small, large = kernel("small", lambda n: n), kernel("large", lambda n: 600 + n / 10)
    found = decide(entered(small, large, monkeypatch=monkeypatch), Tuner(cached=False))
    assert [r.kernel for r in found] == ["small", "large"]
    assert found[0].most == int((384 * 1024) ** 0.5) and found[1].most is None
    assert [pick(found, n).kernel for n in (1, 627, 628, 10**6)] == ["small", "small", "large", "large"]
    assert len(race) == len(SIZES)
    assert found[1].timings[0][0] == "large"


def test_kernels_compete_only_where_they_can_run(race, monkeypatch):
    few = kernel("few", lambda n: 1, most=200)
    many = kernel("many", lambda n: 2, least=384)
    any_ = kernel("any", lambda n: 3)
    found = decide(entered(few, many, any_, monkeypatch=monkeypatch), Tuner(cached=False))
    assert [r.kernel for r in found] == ["few", "many"]


def test_without_timing_the_first_that_can_is_taken(race, monkeypatch):
    few, any_ = kernel("few", lambda n: 9, most=200), kernel("any", lambda n: 3)
    found = decide(entered(few, any_, monkeypatch=monkeypatch), Tuner(repeats=0))
    assert [r.kernel for r in found] == ["few", "any"]
    assert not race


def test_records_on_disk_spare_the_races(race, monkeypatch):
    kernels = kernel("small", lambda n: n), kernel("large", lambda n: 600)
    first = Tuner()
    decide(entered(*kernels, monkeypatch=monkeypatch), first)
    first.save()
    race.clear()
    again = Tuner()
    assert [r.kernel for r in decide(entered(*kernels, monkeypatch=monkeypatch), again)] == ["small", "large"]
    assert not race and again.timed == 0
    third = kernel("third", lambda n: 0)
    assert decide(entered(*kernels, third, monkeypatch=monkeypatch), Tuner())[0].kernel == "third"
    assert len(race) == len(SIZES)  # a record that does not know a kernel is no record


def test_a_kernel_that_failed_is_not_chosen_and_not_tried_again(race, monkeypatch):
    tuner = Tuner(cached=False)
    good, bad = kernel("good", lambda n: 5), kernel("bad", lambda n: -1.0)
    found = decide(entered(good, bad, monkeypatch=monkeypatch), tuner)
    assert [r.kernel for r in found] == ["good"]
    assert all(name != "bad" for r in found for name, _ in r.timings)
    race.clear()
    decide(entered(good, bad, monkeypatch=monkeypatch), tuner)
    assert not race
    alone = decide(entered(bad, kernel("worse", lambda n: -1.0), monkeypatch=monkeypatch), Tuner(cached=False))
    assert [r.kernel for r in alone] == ["reference.gelu"]


def test_rows_are_counted_by_the_first_operand_with_named_sizes(monkeypatch):
    assert rows_of(call(symbol("T"), 8)) == Dim(("T",))
    assert rows_of(call(symbol("B"), symbol("S"), 8)) == Dim(("B", "S"))
    assert rows_of(call(4, 8)) is None
    assert entered(shape=(4, 8), monkeypatch=monkeypatch) is None
    of_sequences = entered(kernel("k", lambda n: n), shape=(symbol("B"), 8), monkeypatch=monkeypatch)
    assert [size.sequences for size, _ in of_sequences.entries] == [1, 8, 32, 128]


def test_the_key_of_a_gpu_names_driver_and_versions():
    key = machine_key(FAKE)
    assert all(word in key for word in ("cuda", "a fake", "driver", f"torch {torch.__version__}", "triton"))
    assert machine_key(Device("cuda", name="another")) != key
