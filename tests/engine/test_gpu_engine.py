"""Engines on a real GPU against the same engine on the host."""

import threading

import numpy as np
import pytest
import torch
from networks import batch, encoder

import qontext as qx
from qontext.dtypes import by_name, relative_rms
from qontext.errors import DeviceError, InputError

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@pytest.fixture(scope="module")
def model():
    return encoder(hidden=128, heads=2, inner=512, positions=300)


@pytest.fixture(scope="module")
def reference(model):
    return qx.build(model, tune=False)


@pytest.fixture(scope="module", params=list(PRECISIONS))
def engine(request, model):
    return qx.build(model, device="cuda", precision=request.param, tune=False)


@pytest.fixture(scope="module")
def host(model, engine):
    """The engine of the same precision on the host."""
    return qx.build(model, precision=engine.precision, tune=False)


@pytest.fixture(scope="module")
def half(model):
    return qx.build(model, device="cuda", precision="fp16", tune=False)


def ragged(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 100, (rows, length), generator=generator)
    counts = torch.randint(0, length + 1, (rows,), generator=generator)
    counts[0] = length
    return {"input_ids": ids, "attention_mask": (torch.arange(length) < counts[:, None]).long()}


def same(engine, got, want, host=None):
    """Equal within the tolerance of the precision, or within what the same precision costs on the host and a half."""
    limit = by_name(PRECISIONS[engine.precision]).tolerance
    assert list(got) == list(want)
    for name in want:
        rounding = 0.0 if host is None else relative_rms(host[name], want[name])
        assert relative_rms(got[name], want[name]) < max(limit, 1.5 * rounding), name


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (3, 17), (2, 300), (16, 33), (64, 128)])
def test_results_equal_those_of_the_host(engine, host, reference, rows, length):
    before = sum(row["replays"] for row in engine.graphs["captured"])
    for seed in range(3):
        inputs = ragged(rows, length, seed)
        same(engine, engine.run(inputs), reference.run(inputs), host.run(inputs))
    assert engine.graphs["reason"] == ""
    assert sum(row["replays"] for row in engine.graphs["captured"]) == before + 3


def test_no_step_runs_on_a_reference(engine):
    assert not [s.kernel for s in engine.compiled.programs["encode"].steps if s.kernel.startswith("reference.")]


def test_inputs_and_outputs_may_lie_on_either_side(half, reference):
    inputs = batch()
    want = reference.run(inputs)
    on_gpu = {k: v.cuda() for k, v in inputs.items()}
    for _ in range(3):
        out = half.run(on_gpu)
        assert all(t.is_cuda for t in out.values())
        same(half, out, want)
    mixed = half.run({"input_ids": inputs["input_ids"], "attention_mask": on_gpu["attention_mask"]})
    assert not any(t.is_cuda for t in mixed.values())
    same(half, mixed, want)
    assert all(t.is_cuda for t in half.run(inputs, output_device="cuda").values())
    assert all(isinstance(a, np.ndarray) for a in half.run({k: v.numpy() for k, v in inputs.items()}).values())


def test_graphs_and_single_launches_agree(model, engine):
    plain = qx.build(model, device="cuda", precision=engine.precision, tune=False, graphs=False)
    for rows, length in ((1, 64), (32, 32), (16, 256)):
        inputs = {"input_ids": torch.randint(0, 100, (rows, length))}
        same(engine, engine.run(inputs), plain.run(inputs))


def test_unpacked_engines_run(model, reference):
    engine = qx.build(model, device="cuda", precision="fp16", tune=False, packing=False)
    inputs = {"input_ids": torch.randint(0, 100, (4, 50))}
    for _ in range(4):
        same(engine, engine.run(inputs), reference.run(inputs))


def test_outputs_belong_to_the_caller(half):
    inputs = {k: v.cuda() for k, v in batch().items()}
    first = half.run(inputs)
    copies = {n: t.clone() for n, t in first.items()}
    half.run(ragged(3, 17, 3))
    assert all(torch.equal(first[n], copies[n]) for n in first)


def test_nan_in_one_sequence_leaves_the_others_alone(model):
    engine = qx.build(model, device="cuda", precision="fp16", tune=False)
    constants = engine.compiled.programs["encode"].constants
    table = next(t for t in constants.values() if t.shape == (100, 128))
    assert table.is_cuda
    ids = torch.randint(0, 50, (5, 40))
    clean = engine.run({"input_ids": ids})["last_hidden_state"]
    ids[2, 7] = 99
    table[99] = float("nan")
    bad = engine.run({"input_ids": ids})["last_hidden_state"]
    assert torch.isnan(bad[2]).any()
    others = [0, 1, 3, 4]
    assert torch.equal(bad[others], clean[others])


@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_bad_ids_are_named_wherever_they_lie(half, where):
    with pytest.raises(InputError, match=r"'input_ids' holds 100 at \[1, 2\]; allowed are 0 to 99"):
        half.run({"input_ids": torch.tensor([[5, 1, 2], [3, 4, 100]], device=where)})
    with pytest.raises(InputError, match="holds -1"):
        half.run({"input_ids": torch.tensor([[5, -1]], device=where)})


def test_a_batch_too_large_for_the_memory_is_refused_and_the_engine_lives(model):
    engine = qx.build(model, device="cuda", precision="fp16", tune=False)
    inputs = batch()
    want = engine.run(inputs)
    torch.cuda.empty_cache()
    hold = torch.empty(max(0, torch.cuda.mem_get_info()[0] - (64 << 20)), dtype=torch.uint8, device="cuda")
    try:
        with pytest.raises(
            DeviceError, match=r"too little memory for a run on input_ids \[400, 300\].*split the batch"
        ):
            engine.run({"input_ids": torch.ones(400, 300, dtype=torch.long)})
    finally:
        del hold
    same(engine, engine.run(inputs), want)


def test_streams_and_threads_may_share_an_engine(half):
    cases = [ragged(4, 40, seed) for seed in range(4)]
    want = [half.run(c)["last_hidden_state"] for c in cases]
    wrong = []

    def work(number):
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                if not torch.equal(half.run(cases[number])["last_hidden_state"], want[number]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_but_padding_and_empty_batches(half):
    out = half.run({"input_ids": torch.ones(2, 5, dtype=torch.long), "attention_mask": torch.zeros(2, 5).long()})
    assert out["last_hidden_state"].abs().max() == 0
    assert half.run({"input_ids": torch.zeros(0, 5, dtype=torch.long)})["last_hidden_state"].shape == (0, 5, 128)


def test_a_saved_engine_gives_the_same_results(half, tmp_path):
    half.save(tmp_path / "model.qx")
    loaded = qx.load(tmp_path / "model.qx")
    inputs = batch()
    assert all(torch.equal(a, half.run(inputs)[n]) for n, a in loaded.run(inputs).items())


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_steady_runs_read_back_once_at_most(half):
    """From the host nothing is read back before the first kernel; from the device, ranges and lengths in one stop."""
    inputs = batch()
    for place in ("cpu", "cuda"):
        given = {k: v.to(place) for k, v in inputs.items()}
        for _ in range(3):
            half.run(given, output_device="cuda")
        torch.cuda.synchronize()
        if place == "cpu":
            torch.cuda.set_sync_debug_mode("error")
        try:
            half.run(given, output_device="cuda")
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_packed_input_equals_padded_input(half, reference):
    lengths = [5, 300, 1, 0, 77]
    ids = torch.randint(0, 100, (sum(lengths),))
    rows = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    rows[mask] = ids
    whole = reference.run({"input_ids": rows, "attention_mask": mask.long()})
    want = {"last_hidden_state": whole["last_hidden_state"][mask], "logits": whole["logits"]}
    for place in ("cpu", "cuda"):
        for _ in range(2):
            same(half, half.run({"input_ids": ids.to(place)}, lengths=lengths), want)


def test_explain_times_steps_on_the_device(half):
    data = qx.explain(half, batch=4, length=64).data
    assert data["graphs"]["steps"] > 10
    assert all(step["us"] > 0 for step in data["steps"])
    core = [s for s in data["steps"] if s["op"] in ("Linear", "QKVToContext", "SkipLayerNorm")]
    assert all(0 < s["share_of_ceiling"] < 1.5 for s in core)


def test_tuned_builds_time_kernels_once(model, reference, tmp_path, monkeypatch):
    monkeypatch.setenv("QONTEXT_CACHE_DIR", str(tmp_path))
    first = qx.build(model, device="cuda", precision="fp16")
    assert first.compiled.tuner.timed > 0
    again = qx.build(model, device="cuda", precision="fp16")
    assert again.compiled.tuner.timed == 0
    kernels = [[s.kernels for s in e.compiled.programs["encode"].steps] for e in (first, again)]
    assert kernels[0] == kernels[1]
    for rows, length in ((1, 20), (8, 128), (40, 300)):
        inputs = ragged(rows, length, 2)
        same(again, again.run(inputs), reference.run(inputs))
