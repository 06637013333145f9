"""Stretches of steps that are noted and made again: the same numbers for every batch, and nobody's tensors touched."""

import pytest
import torch
from networks import encoder

import qontext as qx
from qontext import native
from qontext.dtypes import by_name, relative_rms
from qontext.errors import InputError
from qontext.graph.model import Model
from qontext.ops.network import Network
from qontext.runtime.replay import Stretch

pytestmark = pytest.mark.skipif(not native.available(), reason="replays calls of the kernel library")


@pytest.fixture(scope="module", params=["fp32", "int8"])
def engine(request):
    return qx.build(encoder(layers=3), precision=request.param, tune=False)


def executor_of(engine):
    engine.run(batch_of(3))
    return next(iter(engine._executors.values()))


def batch_of(*lengths: int) -> dict[str, torch.Tensor]:
    ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, n in enumerate(lengths):
        ids[row, :n] = torch.randint(0, 100, (n,))
        mask[row, :n] = 1
    return {"input_ids": ids, "attention_mask": mask}


def test_batches_of_the_same_and_of_other_sizes(engine, monkeypatch):
    executor = executor_of(engine)
    played = []
    run = Stretch.run
    monkeypatch.setattr(Stretch, "run", lambda self, *a: (played.append(a[1] in self._noted), run(self, *a))[1])
    # The same sizes with other boundaries, a larger batch that moves the arena, the small one again.
    shapes = [(7, 5), (5, 7), (7, 5), (30, 12, 1), (7, 5), (5, 7), (12, 30, 1), (1, 12, 30)]
    batches = [batch_of(*lengths) for lengths in shapes]
    found = [{n: t.clone() for n, t in engine.run(b).items()} for b in batches]
    assert played.count(True) >= 4
    monkeypatch.setattr(executor, "_stretches", [])
    for one, b in zip(found, batches, strict=True):
        plain = engine.run(b)
        assert all(torch.equal(one[n], plain[n]) for n in plain)


def test_most_steps_are_replayed(engine):
    executor = executor_of(engine)
    replayed = sum(s.last - s.first for s in executor._stretches)
    assert replayed >= 3 * 7 - 1  # the last norm gives a result of the program


def test_other_numbers_of_threads_are_noted_anew(engine):
    b = batch_of(9, 4)
    want = engine.run(b)["last_hidden_state"].clone()
    before = torch.get_num_threads()
    try:
        for threads in (1, 3, 2):
            torch.set_num_threads(threads)
            for _ in range(2):
                torch.testing.assert_close(engine.run(b)["last_hidden_state"], want)
    finally:
        torch.set_num_threads(before)


def test_every_step_has_its_lap(engine):
    executor = executor_of(engine)
    inputs = batch_of(6, 2) | {"position_ids": torch.arange(6).expand(2, 6).contiguous()}
    for _ in range(3):  # noted, then replayed
        laps = executor.laps(inputs)
        assert len(laps) == len(executor.program.steps) and min(laps) >= 0


def test_observed_runs_go_step_by_step(engine):
    executor = executor_of(engine)
    seen = []
    inputs = batch_of(6, 2) | {"position_ids": torch.arange(6).expand(2, 6).contiguous()}
    for _ in range(2):
        executor.run(inputs)
    executor.run(inputs, lambda step, results: seen.append(step.name))
    assert seen == [step.name for step in executor.program.steps]


def three_layers():
    """An engine of three linear layers and a negation, and what it gives in float64."""
    net = Network("three")
    y = net.input("x", "float32", ("R", 16))
    weights = [torch.randn(16, 16) for _ in range(3)]
    for i, weight in enumerate(weights):
        y = net.linear(y, net.parameter(f"w{i}", weight))
    net.output(net.op("Neg", y), "y")
    first, second, third = (w.double().T for w in weights)
    engine = qx.build(Model("three", net.graph, net.ledger(), {}), tune=False)
    return engine, lambda x: -(x.double() @ first @ second @ third)


def test_a_tensor_that_got_other_memory():
    engine, wanted = three_layers()
    x = torch.randn(4000, 16)
    for _ in range(3):
        assert relative_rms(engine.run({"x": x})["y"], wanted(x)) < by_name("float32").tolerance
        x.data = torch.randn(4000, 16)


@pytest.mark.parametrize("rows", [3, 4000], ids=["small", "large"])
def test_tensors_of_the_caller_stay_as_they_are(rows):
    engine, wanted = three_layers()
    given = [torch.randn(rows, 16) for _ in range(4)]
    kept = [t.clone() for t in given]
    for t, k in zip(given, kept, strict=True):
        assert relative_rms(engine.run({"x": t})["y"], wanted(k)) < by_name("float32").tolerance
    assert all(torch.equal(t, k) for t, k in zip(given, kept, strict=True))


def test_a_call_that_fails_is_named(engine, monkeypatch):
    executor = executor_of(engine)
    b = batch_of(8, 8)
    engine.run(b)
    for stretch in executor._stretches:
        for noted in stretch._noted.values():
            if noted is not None:
                monkeypatch.setattr(noted.tape, "play", lambda laps: (1, 2))
    with pytest.raises(InputError, match="cannot compute what these inputs lead to: status 2"):
        engine.run(b)
