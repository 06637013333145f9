"""Build, run, save, load."""

import os
import threading

import numpy as np
import pytest
import torch
from networks import batch, encoder

import qontext as qx
from qontext.builder.tune import Tuner
from qontext.dtypes import BY_NAME, relative_rms
from qontext.errors import ArgumentError, DTypeError, EngineFileError, InputError, QontextError, ShapeError


@pytest.fixture(scope="module")
def model():
    return encoder()


@pytest.fixture(scope="module")
def engine(model):
    return qx.build(model, tune=False)


@pytest.fixture(scope="module")
def inputs():
    return batch()


def test_packed_equals_padded_on_real_tokens(model, engine, inputs):
    plain = qx.build(model, tune=False, packing=False)
    assert any(s.op == "PackTokens" for s in engine.compiled.programs["encode"].steps)
    assert not any(s.op == "PackTokens" for s in plain.compiled.programs["encode"].steps)
    a, b = engine.run(inputs), plain.run(inputs)
    real = inputs["attention_mask"].bool()
    tolerance = BY_NAME["float32"].tolerance
    assert relative_rms(a["last_hidden_state"][real], b["last_hidden_state"][real]) < tolerance
    assert a["last_hidden_state"][~real].abs().max() == 0
    assert relative_rms(a["logits"][:2], b["logits"][:2]) < tolerance


def test_packed_row_equals_the_same_row_alone(engine, inputs):
    whole = engine.run(inputs)["last_hidden_state"]
    length = int(inputs["attention_mask"][1].sum())
    alone = engine.run({"input_ids": inputs["input_ids"][1:2, :length]})["last_hidden_state"]
    assert relative_rms(whole[1, :length], alone[0]) < BY_NAME["float32"].tolerance


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (7, 33), (2, 40), (1, 40)])
def test_any_size_below_the_maximum_runs(engine, rows, length):
    ids = torch.randint(0, 100, (rows, length))
    assert engine.run({"input_ids": ids})["last_hidden_state"].shape == (rows, length, 64)


def test_bf16_is_within_tolerance(model, engine, inputs):
    low = qx.build(model, precision="bf16", tune=False)
    a, b = low.run(inputs)["last_hidden_state"], engine.run(inputs)["last_hidden_state"]
    assert a.dtype == torch.float32
    assert relative_rms(a, b) < BY_NAME["bfloat16"].tolerance
    kinds = {o.dtype for s in low.compiled.programs["encode"].steps if s.op == "Linear" for o in s.call.outputs if o}
    assert kinds == {"bfloat16"}


def test_numpy_in_numpy_out_torch_in_torch_out(engine, inputs):
    a = engine.run({k: v.numpy() for k, v in inputs.items()})
    assert all(isinstance(v, np.ndarray) for v in a.values())
    assert list(a) == ["last_hidden_state", "logits"] == engine.output_names
    b = engine.run(inputs)
    assert all(isinstance(v, torch.Tensor) for v in b.values())
    assert np.array_equal(a["logits"], b["logits"].numpy())


def test_outputs_belong_to_the_caller(engine, inputs):
    first = engine.run(inputs)["last_hidden_state"]
    copy = first.clone()
    engine.run({"input_ids": torch.zeros(4, 30, dtype=torch.long)})
    assert torch.equal(first, copy)
    first.zero_()
    assert torch.equal(engine.run(inputs)["last_hidden_state"], copy)


def test_int32_strided_and_list_inputs_are_taken(engine, inputs):
    want = engine.run(inputs)["logits"]
    strided = torch.stack([inputs["input_ids"]] * 2, dim=2)[:, :, 0]
    got = engine.run({"input_ids": strided.int(), "attention_mask": inputs["attention_mask"].bool()})["logits"]
    assert torch.equal(want, got)
    listed = engine.run({k: v.tolist() for k, v in inputs.items()})["logits"]
    assert np.array_equal(listed, want.numpy())


def test_empty_batches_give_empty_outputs(engine):
    out = engine.run({"input_ids": torch.zeros(0, 5, dtype=torch.long)})
    assert out["last_hidden_state"].shape == (0, 5, 64)
    assert engine.run({"input_ids": torch.zeros(2, 0, dtype=torch.long)})["last_hidden_state"].shape == (2, 0, 64)


def test_nothing_but_padding_gives_zeros(engine, inputs):
    out = engine.run({**inputs, "attention_mask": torch.zeros_like(inputs["attention_mask"])})
    assert out["last_hidden_state"].abs().max() == 0
    assert torch.isfinite(out["logits"]).all()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"input_ids": torch.tensor([[-1, 2]])}, InputError, r"holds -1 at \[0, 0\]; allowed are 0 to 99"),
        ({"input_ids": torch.tensor([[5, 100]])}, InputError, "holds 100"),
        ({"input_ids": torch.tensor([[5, 2**62]])}, InputError, "holds"),
        ({"input_ids": torch.tensor([[0.5, 2.0]])}, DTypeError, "float32, expected torch.int64"),
        ({"input_ids": torch.tensor([1, 2])}, ShapeError, r"\[2\], expected \[B, S\]"),
        (
            {"input_ids": torch.ones(1, 41, dtype=torch.long)},
            InputError,
            "41 tokens were given, the engine takes at most 40",
        ),
        ({"input_ids": [["a", "b"]]}, DTypeError, "cannot be read|expected"),
        (
            {"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 4)},
            DTypeError,
            "attention_mask",
        ),
        (
            {"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 4, dtype=torch.long)},
            ShapeError,
            "'attention_mask' has 4 on axis 1 .*'input_ids' has 3",
        ),
        ({"ids": torch.ones(1, 2)}, InputError, "(?s)unknown input 'ids'.*'input_ids' is missing"),
        ({}, InputError, "'input_ids' is missing"),
    ],
)
def test_bad_inputs_are_named(engine, change, error, words):
    with pytest.raises(error, match=words):
        engine.run(change)


def test_a_bad_run_leaves_the_engine_usable(engine, inputs):
    want = engine.run(inputs)["logits"]
    with pytest.raises(QontextError):
        engine.run({"input_ids": torch.tensor([[500]])})
    assert torch.equal(engine.run(inputs)["logits"], want)


def test_max_tokens_is_kept(model):
    small = qx.build(model, tune=False, max_tokens=50)
    assert small.run({"input_ids": torch.ones(2, 25, dtype=torch.long)})["logits"].shape == (2, 5)
    with pytest.raises(InputError, match=r"2 x 26 = 52 tokens were given, the engine takes at most 50"):
        small.run({"input_ids": torch.ones(2, 26, dtype=torch.long)})


@pytest.mark.parametrize("settings", [{"precision": "int3"}, {"device": "tpu"}, {"max_tokens": 0}, {"max_length": -1}])
def test_bad_settings_are_named(model, settings):
    with pytest.raises(ArgumentError, match=next(iter(settings))):
        qx.build(model, **settings)


def test_save_and_load(engine, inputs, tmp_path):
    path = tmp_path / "model.qx"
    engine.save(path)
    loaded = qx.load(path)
    for name, tensor in engine.run(inputs).items():
        assert torch.equal(loaded.run(inputs)[name], tensor)
    assert loaded.config == engine.config
    assert loaded.input_rules == engine.input_rules
    assert loaded.compiled.ledger == engine.compiled.ledger
    assert [s.name for s in loaded.compiled.programs["encode"].steps] == [
        s.name for s in engine.compiled.programs["encode"].steps
    ]
    again = tmp_path / "again.qx"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_building_twice_gives_the_same_bytes(model, tmp_path):
    for name in ("a.qx", "b.qx"):
        qx.build(encoder(), tune=False).save(tmp_path / name)
    assert (tmp_path / "a.qx").read_bytes() == (tmp_path / "b.qx").read_bytes()


def test_two_processes_writing_one_file_leave_a_whole_one(engine, tmp_path):
    path = tmp_path / "model.qx"
    threads = [threading.Thread(target=engine.save, args=(path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert qx.load(path).output_names == engine.output_names
    assert [p.name for p in tmp_path.iterdir()] == ["model.qx"]


def test_a_loaded_engine_uses_the_saved_timings(model, tmp_path):
    engine = qx.build(model, tuner=Tuner(repeats=1))
    assert engine.compiled.tuner.timed > 0
    engine.save(tmp_path / "model.qx")
    loaded = qx.load(tmp_path / "model.qx")
    assert loaded.compiled.tuner.timed == 0
    kernels = [[s.kernel for s in e.compiled.programs["encode"].steps] for e in (engine, loaded)]
    assert kernels[0] == kernels[1]


def test_newer_files_and_weaker_machines_are_refused(model, tmp_path, monkeypatch):
    from qontext.builder import engine_file
    from qontext.ops.call import Device

    path = tmp_path / "model.qx"
    monkeypatch.setattr(engine_file, "FORMAT", 7)
    qx.build(model, tune=False).save(path)
    monkeypatch.undo()
    with pytest.raises(EngineFileError, match=r"format 7.*this is qontext.*qontext build"):
        qx.load(path)
    qx.build(model, precision="bf16", tune=False).save(path)
    monkeypatch.setattr(engine_file, "device_of", lambda kind: Device("cpu", frozenset({"avx2"}), "an old one"))
    with pytest.raises(EngineFileError, match=r"bf16 and needs.*an old one.*--precision fp32"):
        qx.load(path)


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(EngineFileError, match=r"no engine file at 'no\.qx'"):
        qx.load(tmp_path / "no.qx")


def test_printing_shows_one_line_a_step(engine):
    text = str(engine)
    steps = engine.compiled.programs["encode"].steps
    assert len(text.splitlines()) == len(steps) + 3
    assert "QKVToContext" in text
    assert "layer.1" in text
    assert "float32[T, 192]" in text


def test_observe_sees_every_step(engine, inputs):
    seen = []
    engine.run(inputs, observe=lambda step, outputs: seen.append((step.name, outputs[0].shape)))
    assert [name for name, _ in seen] == [s.name for s in engine.compiled.programs["encode"].steps]


def test_threads_may_share_an_engine(engine, inputs):
    want = engine.run(inputs)["logits"]
    failures = []

    def work():
        for _ in range(10):
            if not torch.equal(engine.run(inputs)["logits"], want):
                failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="counts page faults the Linux way")
def test_a_steady_state_has_hardly_any_page_faults(model):
    import resource

    engine = qx.build(encoder(hidden=256, heads=4, inner=1024), tune=False)
    inputs = {"input_ids": torch.randint(0, 100, (16, 40))}
    for _ in range(5):
        engine.run(inputs)
    faults = []
    for _ in range(5):  # other tests leave memory behind that comes and goes: a steady block of runs is what counts
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            engine.run(inputs)
        faults.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
    assert min(faults) < 10


def test_a_batch_like_one_before_is_checked_by_its_numbers(model):
    engine = qx.build(model, tune=False)
    good = {"input_ids": torch.randint(0, 100, (2, 5))}
    first = engine.run(good)["last_hidden_state"]
    assert torch.equal(engine.run(good)["last_hidden_state"], first)
    other = {"input_ids": good["input_ids"].clone()}
    other["input_ids"][1, 2] = 100
    with pytest.raises(InputError, match=r"holds 100 at \[1, 2\]"):
        engine.run(other)
    with pytest.raises(DTypeError, match="expected torch"):
        engine.run({"input_ids": good["input_ids"].float()})
    # A view of the same shape that is not contiguous is not the batch before.
    turned = torch.randint(0, 100, (5, 2)).t()
    same = engine.run({"input_ids": turned.contiguous()})["last_hidden_state"]
    assert torch.equal(engine.run({"input_ids": turned})["last_hidden_state"], same)
