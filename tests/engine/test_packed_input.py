"""Input that is packed already gives what the same sequences give in a padded batch."""

import gpu_fake
import numpy as np
import pytest
import torch
from networks import encoder

import qontext as qx
from qontext.dtypes import BY_NAME, relative_rms
from qontext.errors import ArgumentError, InputError, ShapeError

TOLERANCE = BY_NAME["float32"].tolerance
LENGTHS = [5, 40, 1, 0, 17, 8]


@pytest.fixture(scope="module")
def model():
    return encoder()


@pytest.fixture(scope="module")
def host(model):
    return qx.build(model, tune=False)


@pytest.fixture(params=["cpu", "fake gpu", "fake gpu without graphs"])
def engine(request, model, host, monkeypatch):
    if request.param == "cpu":
        return host
    gpu_fake.fake_gpu(monkeypatch)
    return qx.build(model, device="cuda", tune=False, graphs="without" not in request.param)


def sequences(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 100, (n,), generator=generator) for n in lengths]


def padded(parts):
    ids = torch.zeros(len(parts), max(len(p) for p in parts), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, part in enumerate(parts):
        ids[row, : len(part)] = part
        mask[row, : len(part)] = 1
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("lengths", [LENGTHS, [40], [3, 3, 3], [0, 2]])
def test_packed_equals_padded(engine, host, lengths):
    for seed in range(2):
        parts = sequences(lengths, seed)
        whole = host.run(padded(parts))
        got = engine.run({"input_ids": torch.cat(parts)}, lengths=lengths)
        want = torch.cat([whole["last_hidden_state"][i, :n] for i, n in enumerate(lengths)])
        assert got["last_hidden_state"].shape == (sum(lengths), 64)
        assert relative_rms(got["last_hidden_state"], want) < TOLERANCE
        assert got["logits"].shape == (len(lengths), 5)
        assert relative_rms(got["logits"], whole["logits"]) < TOLERANCE


def test_packed_and_padded_runs_take_turns(engine, host):
    parts = sequences(LENGTHS)
    whole = host.run(padded(parts))
    for _ in range(2):
        packed = engine.run({"input_ids": torch.cat(parts)}, lengths=LENGTHS)
        again = engine.run(padded(parts))
        assert relative_rms(again["last_hidden_state"], whole["last_hidden_state"]) < TOLERANCE
        assert relative_rms(packed["logits"], whole["logits"]) < TOLERANCE


def test_positions_may_be_given_and_arrays_stay_arrays(engine, host):
    parts = sequences(LENGTHS)
    places = np.concatenate([np.arange(n)[::-1] for n in LENGTHS])
    given = {"input_ids": torch.cat(parts).numpy(), "position_ids": places}
    got = engine.run(given, lengths=np.array(LENGTHS))
    assert all(isinstance(a, np.ndarray) for a in got.values())
    turned = padded(parts)
    turned["position_ids"] = padded([torch.arange(n).flip(0) for n in LENGTHS])["input_ids"]
    want = host.run(turned)["logits"]
    assert relative_rms(torch.from_numpy(got["logits"]), want) < TOLERANCE


@pytest.mark.parametrize(
    ("inputs", "lengths", "error", "words"),
    [
        ({"input_ids": torch.ones(5).long()}, [2, 2], ShapeError, "add up to 4, the packed inputs have 5 tokens"),
        ({"input_ids": torch.ones(5).long()}, [7, -2], InputError, "lengths holds -2"),
        ({"input_ids": torch.ones(5).long()}, [], InputError, "a list of whole numbers"),
        ({"input_ids": torch.ones(5).long()}, [2.5, 2.5], InputError, "a list of whole numbers"),
        ({"input_ids": torch.ones(5).long()}, [[5]], InputError, "a list of whole numbers"),
        ({"input_ids": torch.ones(41).long()}, [41], InputError, "a sequence of 41 tokens .* at most 40"),
        ({"input_ids": torch.ones(0).long()}, [0], InputError, "without a token"),
        ({"input_ids": torch.ones(2, 3).long()}, [2], ShapeError, r"\[1, 2, 3\], expected \[B, S\]"),
        ({"input_ids": torch.tensor(3)}, [1], ShapeError, r"is a single number, expected \[T\]"),
        ({"input_ids": torch.full((3,), 100)}, [3], InputError, "holds 100"),
        (
            {"input_ids": torch.ones(5).long(), "position_ids": torch.ones(4).long()},
            [5],
            ShapeError,
            "'position_ids' has 4 tokens, others have 5",
        ),
        (
            {"input_ids": torch.ones(5).long(), "attention_mask": torch.ones(5).long()},
            [5],
            ShapeError,
            "'attention_mask' says what is padding",
        ),
    ],
)
def test_unusable_packed_input_is_named(engine, inputs, lengths, error, words):
    with pytest.raises(error, match=words):
        engine.run(inputs, lengths=lengths)


def test_an_engine_that_keeps_padding_takes_none(model):
    plain = qx.build(model, tune=False, packing=False)
    with pytest.raises(ArgumentError, match=r"packed input .* padding was not removed.*; give a padded batch"):
        plain.run({"input_ids": torch.ones(5).long()}, lengths=[5])
