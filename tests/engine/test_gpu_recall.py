"""Batches without padding that come again: only what differs is copied, and nothing of another batch is seen."""

import gpu_fake
import pytest
import torch
from networks import encoder

import qontext as qx
from qontext.dtypes import BY_NAME, relative_rms
from qontext.errors import InputError

TOLERANCE = BY_NAME["float32"].tolerance


@pytest.fixture(scope="module")
def model():
    return encoder()


@pytest.fixture(scope="module")
def reference(model):
    return qx.build(model, tune=False)


@pytest.fixture
def engine(model, monkeypatch):
    gpu_fake.fake_gpu(monkeypatch)
    return qx.build(model, device="cuda", tune=False)


def recalled(engine):
    return engine._executors["encode"]._recalled


def ids(rows, length, seed):
    return torch.randint(0, 100, (rows, length), generator=torch.Generator().manual_seed(seed))


def check(engine, reference, inputs):
    got, want = engine.run(inputs), reference.run(inputs)
    assert list(got) == list(want)
    for name in want:
        assert relative_rms(got[name], want[name]) < TOLERANCE, name


def test_the_second_run_is_recalled_and_follows_its_ids(engine, reference, monkeypatch):
    check(engine, reference, {"input_ids": ids(2, 17, 0)})
    assert len(recalled(engine)) == 1
    monkeypatch.setattr(engine._executors["encode"], "_launch", lambda *a: pytest.fail("was launched anew"))
    for seed in range(1, 5):
        check(engine, reference, {"input_ids": ids(2, 17, seed)})
    (row,) = engine.graphs["captured"]
    assert row["replays"] == 5


def test_other_batches_of_the_bucket_come_between(engine, reference):
    """One bucket, one pair of landing buffers: boundaries and positions of others must not be taken for one's own."""
    shapes = [(2, 30), (2, 31), (2, 29), (2, 30), (2, 31)]
    for seed in range(3):
        for rows, length in shapes:
            check(engine, reference, {"input_ids": ids(rows, length, seed)})
            mask = (torch.arange(30) < torch.tensor([[30], [10 + seed]])).long()
            check(engine, reference, {"input_ids": ids(2, 30, seed + 9), "attention_mask": mask})
    assert len(recalled(engine)) == 3
    assert len(engine.graphs["captured"]) == 1  # of 64 tokens


def test_a_mask_of_ones_and_positions_that_are_given_are_read_each_time(engine, reference):
    ones = torch.ones(2, 20, dtype=torch.int64)
    for seed in range(4):
        positions = torch.randint(0, 40, (2, 20), generator=torch.Generator().manual_seed(seed))
        check(engine, reference, {"input_ids": ids(2, 20, seed), "attention_mask": ones, "position_ids": positions})
        check(engine, reference, {"input_ids": ids(2, 20, seed), "attention_mask": ones})
    assert len(recalled(engine)) == 2


def test_results_of_recalled_runs_belong_to_the_caller(engine, reference):
    first = engine.run({"input_ids": ids(2, 17, 0)})
    second = engine.run({"input_ids": ids(2, 17, 1)})
    for tensor in (*first.values(), *second.values()):
        tensor.fill_(float("nan"))
    check(engine, reference, {"input_ids": ids(2, 17, 2)})


def test_ids_out_of_range_are_refused_and_the_next_run_is_right(engine, reference):
    check(engine, reference, {"input_ids": ids(2, 17, 0)})
    bad = ids(2, 17, 1)
    bad[1, 3] = 100
    with pytest.raises(InputError, match=r"holds 100 at \[1, 3\]"):
        engine.run({"input_ids": bad})
    check(engine, reference, {"input_ids": ids(2, 17, 1)})


def test_letting_go_of_memory_forgets_what_was_written_down(engine, reference):
    check(engine, reference, {"input_ids": ids(2, 17, 0)})
    engine._executors["encode"].release()
    assert not recalled(engine)
    check(engine, reference, {"input_ids": ids(2, 17, 1)})
