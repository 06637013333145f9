"""Everything of a GPU engine but its kernels: parts, landing, buckets, replays over padded sizes."""

import gpu_fake
import pytest
import torch
from networks import batch, encoder

import qontext as qx
from qontext.builder import compile as compiling
from qontext.dtypes import BY_NAME, relative_rms
from qontext.errors import DeviceError, InputError
from qontext.runtime.buckets import Bucket, bucket_of
from qontext.runtime.gpu_executor import GpuExecutor

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


def executor_of(engine) -> GpuExecutor:
    found = engine._executors["encode"]
    assert isinstance(found, GpuExecutor)
    return found


def random_batch(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 100, (rows, length), generator=generator)
    counts = torch.randint(0, length + 1, (rows,), generator=generator)
    mask = (torch.arange(length) < counts[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


def same(a, b):
    assert list(a) == list(b)
    for name in a:
        assert relative_rms(a[name], b[name]) < TOLERANCE, name


def test_the_steps_are_divided_at_the_packed_tokens(engine):
    parts, steps = executor_of(engine).parts, engine.compiled.programs["encode"].steps
    head = [s.op for s in steps[: parts.head]]
    core = [s.op for s in steps[parts.head : parts.head + parts.core]]
    tail = [s.op for s in steps[parts.head + parts.core :]]
    assert head[0] == "PackIndex" and set(head[1:]) == {"PackTokens"}
    assert core[0] == "EmbedLayerNorm" and core.count("QKVToContext") == 2 and "FirstTokens" in core
    assert tail == ["UnpackTokens"]
    assert [t.call.device.type for t in parts.host] == ["cpu"] * len(head)


def test_runs_equal_those_of_the_host(engine, reference):
    inputs = batch()
    for _ in range(3):
        same(engine.run(inputs), reference.run(inputs))
    executor = executor_of(engine)
    assert [row["replays"] for row in executor.graphs.rows()] == [3]
    assert executor.graphs.rows()[0]["sizes"] == "64 tokens, 4 sequences of at most 64"


def test_one_graph_serves_many_ragged_batches(engine, reference):
    """Larger batches first: what they leave in the static tensors must not be seen by smaller ones."""
    sizes = [(6, 30), (5, 31), (6, 17), (2, 30), (1, 40), (3, 12), (8, 7), (1, 1)]
    for seed in range(3):
        for rows, length in sizes:
            inputs = random_batch(rows, length, seed)
            same(engine.run(inputs), reference.run(inputs))
    executor = executor_of(engine)
    rows = executor.graphs.rows()
    assert sum(row["replays"] for row in rows) > 2 * len(rows)
    assert executor.graphs._capture.count == len(rows)


def test_sequences_do_not_see_their_neighbours(engine):
    """Embeddings that are NaN in one sequence make NaN there and nowhere else, replay after replay."""
    inputs = batch()
    weights = engine.compiled.programs["encode"].constants
    table = next(t for t in weights.values() if t.shape == (100, 64))
    clean = engine.run(inputs)["last_hidden_state"]
    id_of_second = int(inputs["input_ids"][1, 0])
    others = [row for row in (0, 2) if not (inputs["input_ids"][row] == id_of_second).any()]
    before = table[id_of_second].clone()
    table[id_of_second] = float("nan")
    bad = engine.run(inputs)["last_hidden_state"]
    table[id_of_second] = before
    assert torch.isnan(bad[1]).any()
    assert others
    for row in others:
        assert relative_rms(bad[row], clean[row]) < TOLERANCE
    assert relative_rms(engine.run(inputs)["last_hidden_state"], clean) < TOLERANCE


def test_outputs_belong_to_the_caller(engine):
    inputs = batch()
    first = engine.run(inputs)
    copies = {n: t.clone() for n, t in first.items()}
    engine.run(random_batch(3, 17, 5))
    assert all(torch.equal(first[n], copies[n]) for n in first)
    for tensor in first.values():
        tensor.fill_(float("nan"))
    same(engine.run(inputs), copies)


def test_nothing_but_padding(engine, reference):
    inputs = batch()
    inputs["attention_mask"] = torch.zeros_like(inputs["attention_mask"])
    for _ in range(2):
        out = engine.run(inputs)
        assert out["last_hidden_state"].abs().max() == 0
    same({"logits": out["logits"]}, {"logits": reference.run(inputs)["logits"]})


def test_steps_are_launched_one_by_one_when_observed_or_switched_off(model, engine, monkeypatch):
    seen = []
    engine.run(batch(), observe=lambda step, outputs: seen.append(step.name))
    assert len(seen) == len(engine.compiled.programs["encode"].steps)
    assert not engine.graphs["captured"]
    plain = qx.build(model, device="cuda", tune=False, graphs=False)
    plain.run(batch())
    assert plain.graphs == {"reason": "graphs were switched off", "steps": 0, "captured": []}
    assert "no CUDA graphs: graphs were switched off" in str(plain)


def test_a_failed_capture_is_told_and_the_run_goes_on(engine, reference):
    def fails(body):
        raise RuntimeError("operation not permitted when stream is capturing\nsecond line")

    executor_of(engine).graphs._capture = fails
    inputs = batch()
    same(engine.run(inputs), reference.run(inputs))
    assert engine.graphs["reason"] == "capture failed: operation not permitted when stream is capturing"
    same(engine.run(inputs), reference.run(inputs))


def test_out_of_memory_is_an_error_of_the_device_and_the_engine_lives(engine, reference, monkeypatch):
    executor = executor_of(engine)
    inputs = batch()
    want = engine.run(inputs)
    run = executor._core[3].step.run

    def full(given, out=None):
        raise torch.OutOfMemoryError("CUDA out of memory")

    executor._core[3].step.run = full
    with pytest.raises(DeviceError, match=r"a fake has too little memory for a run on input_ids \[4, 30\].*split"):
        engine.run(random_batch(4, 30, 1))
    assert executor.arena_bytes == 0 and not executor.graphs.rows()
    executor._core[3].step.run = run
    same(engine.run(inputs), want)


def test_too_little_memory_to_build_is_an_error_of_the_device(model, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    gpu_fake.fake_gpu(monkeypatch)
    monkeypatch.setattr(compiling, "plan_program", full)
    with pytest.raises(DeviceError, match=r"a fake has too little memory to build: .*9 GiB.* lower precision"):
        qx.build(model, device="cuda", tune=False)
    monkeypatch.undo()
    gpu_fake.fake_gpu(monkeypatch)
    assert qx.build(model, device="cuda", tune=False).run(batch())


def test_lengths_that_no_bucket_holds_run_one_by_one_and_those_over_the_limit_are_refused(engine, reference):
    inputs = {"input_ids": torch.randint(0, 100, (700, 30))}
    assert bucket_of(700 * 30, 700, 30) is None
    same(engine.run(inputs), reference.run(inputs))
    assert executor_of(engine).last is None and not engine.graphs["reason"]
    limit = engine.max_length
    with pytest.raises(InputError, match=rf"{limit + 1}.*at most {limit}"):
        engine.run({"input_ids": torch.ones(1, limit + 1, dtype=torch.long)})


def test_bad_ids_are_refused_before_anything_runs(engine):
    with pytest.raises(InputError, match=r"holds 100 at \[0, 1\]"):
        engine.run({"input_ids": torch.tensor([[5, 100]])})
    assert not engine.graphs["captured"]


def test_warming_up_captures(engine):
    engine.warm_up([(1, 10), (4, 40)])
    sizes = {row["sizes"] for row in engine.graphs["captured"]}
    assert sizes == {str(Bucket(32, 1, 64)), str(Bucket(160, 4, 64))}
    replays = {row["sizes"]: row["replays"] for row in engine.graphs["captured"]}
    engine.run({"input_ids": torch.ones(1, 9, dtype=torch.long)})
    assert engine.graphs["captured"][-1]["replays"] == replays[str(Bucket(32, 1, 64))] + 1
    assert "CUDA graphs of" in str(engine) and "160 tokens" in str(engine)


def test_unpacked_programs_are_captured_by_their_exact_sizes_when_they_come_again(model, reference, engine):
    plain = qx.build(model, device="cuda", tune=False, packing=False)
    inputs = batch()
    want = qx.build(model, tune=False, packing=False)
    for count in range(4):
        same(plain.run(inputs), want.run(inputs))
        assert len(plain.graphs["captured"]) == min(count, 1)
    other = random_batch(2, 9, 0)
    other["attention_mask"][:] = 1
    same(plain.run(other), want.run(other))
    assert len(plain.graphs["captured"]) == 1


def test_the_least_recently_used_graph_gives_way(engine):
    executor = executor_of(engine)
    executor.graphs._most = 2
    for length in (10, 40, 10, 35):
        engine.run({"input_ids": torch.ones(3, length, dtype=torch.long)})
    held = [row["sizes"] for row in executor.graphs.rows()]
    assert held == [str(Bucket(32, 4, 64)), str(Bucket(128, 4, 64))]


def test_a_file_of_a_gpu_engine_says_what_is_missing_and_loads_on_the_host(engine, reference, tmp_path, monkeypatch):
    from qontext.builder import engine_file

    monkeypatch.setattr(engine_file, "device_of", lambda kind: gpu_fake.FAKE)
    path = tmp_path / "model.qx"
    engine.save(path)
    monkeypatch.undo()
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match=r"model.qx was built on a fake: .*load\('model.qx', device='cpu'\)"):
            qx.load(path)
    lines = []
    loaded = qx.load(path, device="cpu", log=lines.append)
    assert len(lines) == 1 and lines[0].startswith("built on a fake, loaded on ") and "timed anew" in lines[0]
    assert lines[0] in loaded.compiled.log
    same(loaded.run(batch()), reference.run(batch()))
