"""Caches of eight bits in engines: scales measured, given or 1; what they cost, saved engines, what is refused."""

import decoders
import pytest
import torch

import qontext as qx
from qontext.errors import ArgumentError
from qontext.generation.loop import Settings
from qontext.quant.caches import KvCache, steps_of

PROMPTS = decoders.prompts(3, 11, 1, 7)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    decoders.saved(decoders.llama(), folder)
    model = qx.import_model(folder)
    return model, qx.build(model, tune=False)


def logits(engine, given, steps=4, **settings):
    """Of every step, for tokens that `given` engine chooses: [steps, prompts, V]."""
    chosen = given.generate(PROMPTS, steps)

    def follow(rows, found):
        count[0] += 1
        return [chosen[r][count[0] - 1] for r in rows]

    count = [0]
    return torch.stack([s.logits for s in engine.generator.steps(PROMPTS, Settings(steps, **settings), follow)])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("kind", "allowed"), [("int8", 0.05), ("fp8", 0.12)])
def test_measured_scales(small, kind, allowed, precision):
    """Logits of every step stay near those of the same engine with caches of floats, in both layouts."""
    model, _ = small
    floats = qx.build(model, precision, tune=False)
    want = logits(floats, floats)
    engine = qx.build(model, precision, kv_cache=KvCache(kind, samples=PROMPTS), tune=False)
    got = logits(engine, floats, tokens_per_page=4)
    assert 1e-4 < float((got - want).norm() / want.norm()) < allowed
    held = {t.dtype for t in engine.generator.caches.tensors.values()}
    assert held == {torch.int8 if kind == "int8" else torch.float8_e4m3fn}
    assert torch.equal(logits(engine, floats, tokens_per_page=0), got)


def test_scales_by_head_err_less(tmp_path):
    """Heads whose keys and values are of other sizes, in a model that gives the same logits for all that."""
    model = decoders.saved(decoders.llama(), tmp_path)
    with torch.no_grad():
        for layer in model.model.layers:
            a = layer.self_attn
            a.k_proj.weight[:12] *= 0.01
            a.q_proj.weight[:24] *= 100
            a.v_proj.weight[:12] *= 0.01
            a.o_proj.weight[:, :24] *= 100
    model.save_pretrained(tmp_path)
    model = qx.import_model(tmp_path)
    floats = qx.build(model, tune=False)
    want = logits(floats, floats)
    errors = []
    for by_head in (True, False):
        engine = qx.build(model, kv_cache=KvCache("int8", samples=PROMPTS, by_head=by_head), tune=False)
        errors.append(float((logits(engine, floats) - want).norm() / want.norm()))
    assert errors[0] < 0.25 * errors[1]


def test_steps_are_what_was_measured(small):
    """The scales in the engine: the largest magnitude of a head's keys or values becomes 127."""
    model, floats = small
    engine = qx.build(model, kv_cache=KvCache("int8", samples=PROMPTS), tune=False)
    caches = [floats.generator.caches_after(p) for p in PROMPTS]
    for name in floats.compiled.states:
        most = torch.stack([c[name].abs().amax((2, 3)) for c in caches]).amax(0)
        for program in ("prefill", "decode", "beams"):
            scales = [
                value.const_value.raw
                for key, value in engine.compiled.programs[program].graph.initializers.items()
                if key.startswith(f"{name}.")
            ]
            assert len(scales) == 2
            torch.testing.assert_close(scales[1], most / 127)
            torch.testing.assert_close(scales[0] * scales[1], torch.ones(2, 2))


def test_given_scales_and_scales_of_one(small):
    model, floats = small
    want = logits(floats, floats)
    given = KvCache("int8", steps=[torch.tensor([0.06]), torch.full((2,), 0.06), torch.full((2, 2), 0.06)])
    for how in (given, "fp8"):
        engine = qx.build(model, kv_cache=how, tune=False)
        assert 1e-4 < float((logits(engine, floats) - want).norm() / want.norm()) < 0.12


def test_saved_engine_beams_and_tuning(small, tmp_path):
    model, _ = small
    engine = qx.build(model, "bf16", kv_cache=KvCache("int8", samples=PROMPTS))
    engine.save(tmp_path / "small.qx")
    loaded = qx.load(tmp_path / "small.qx")
    assert loaded.generate(PROMPTS, 5) == engine.generate(PROMPTS, 5)
    paged = engine.generate(PROMPTS, 5, beams=3, tokens_per_page=4)
    assert loaded.generate(PROMPTS, 5, beams=3, tokens_per_page=0) == paged
    told = qx.explain(engine, batch=2, length=9, program="decode")
    assert {(r["dtype"], r["bytes_per_token"]) for r in told.data["caches"]} == {("int8", 2 * 2 * 12)}


def test_a_head_of_zeros_takes_the_layers_step():
    most = torch.tensor([[2.54, 0.0], [1.27, 12.7]])
    torch.testing.assert_close(steps_of(most, KvCache("int8", [[1]])), torch.tensor([[0.02, 0.1], [0.01, 0.1]]))
    torch.testing.assert_close(steps_of(most, KvCache("fp8", by_head=False)), torch.tensor([12.7 / 448]))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("int8", "kv_cache is 'int8' without samples and steps"),
        ("int4", "kv_cache is 'int4', allowed: int8, fp8"),
        (KvCache("int8", steps=[torch.ones(1)]), "kv_cache has 1 steps, the model has 3 layers"),
        (KvCache("int8", steps=[torch.ones(3)] * 3), r"the step of layer 0 is \(3,\), allowed: \[1\], \[2\], \[2, 2\]"),
        (KvCache("fp8", steps=[torch.zeros(1)] * 3), "holds numbers that are not larger than 0"),
        (KvCache("fp8", samples=[[1]], steps=[torch.ones(1)] * 3), "kv_cache has samples and steps"),
    ],
)
def test_refused(small, how, message):
    with pytest.raises(ArgumentError, match=message):
        qx.build(small[0], kv_cache=how, tune=False)


def test_encoders_have_no_caches():
    with pytest.raises(ArgumentError, match="kv_cache is given, but demo-bert is no decoder"):
        qx.build("demo-bert", kv_cache="fp8", tune=False)
