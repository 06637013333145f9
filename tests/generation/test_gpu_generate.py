"""On a GPU: decoders generate what transformers does, step for step, over both layouts of caches, from CUDA graphs."""

import decoders
import pytest
import torch

import qontext as qx
from qontext.generation.loop import Settings
from qontext.ops.gpt_attention.gpu import reads_counts
from qontext.quant.caches import KvCache

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]

PROMPTS = decoders.prompts(3, 11, 1, 7, 30)
DYNAMIC = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}
FAMILIES = {
    "gpt2": (decoders.gpt2, {}),
    "llama": (decoders.llama, {}),
    "llama_64": (decoders.llama, {"hidden_size": 256, "num_key_value_heads": 1}),
    "mistral_window": (decoders.mistral, {"sliding_window": 6}),
    "qwen2": (decoders.qwen2, {}),
}


@pytest.mark.parametrize("tokens_per_page", [0, 4, 16])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_step_equals_transformers(name, tokens_per_page, tmp_path):
    make, changes = FAMILIES[name]
    model = decoders.saved(make(**changes), tmp_path)
    engine = qx.build(qx.import_model(tmp_path), device="cuda", tune=False)
    settings = Settings(12, tokens_per_page=tokens_per_page, prefill_tokens=16)
    worst, tokens = decoders.worst_step(engine, model, PROMPTS, settings)
    assert worst < 1e-4
    assert len({tuple(t) for t in tokens}) > 1, "all sequences collapsed onto the same tokens; the test shows nothing"
    graphs = engine.graphs
    assert graphs["reason"] == ""
    assert sum(g["replays"] for g in graphs["captured"]) == 11
    assert engine.generate(PROMPTS, 12, tokens_per_page=tokens_per_page) == tokens
    pages = engine.generator.caches.pages
    assert pages.free == pages.count


def test_scaling_by_length_runs_without_graphs(tmp_path):
    model = decoders.saved(decoders.llama(**DYNAMIC), tmp_path)
    engine = qx.build(qx.import_model(tmp_path), device="cuda", tune=False)
    worst, _ = decoders.worst_step(engine, model, PROMPTS[1:2], Settings(6))
    assert worst < 1e-4
    assert "'dynamic'" in engine.graphs["reason"]


@pytest.mark.parametrize(("precision", "most"), [("fp16", 1e-2), ("bf16", 5e-2)])
def test_lower_precision_stays_near(precision, most, tmp_path):
    """The logits of every step on the engine's own tokens: in few bits near ties fall either way."""
    model = decoders.saved(decoders.llama(), tmp_path)
    engine = qx.build(qx.import_model(tmp_path), precision, device="cuda", tune=False)
    worst, _ = decoders.worst_step(engine, model, PROMPTS, Settings(8, tokens_per_page=16), same_tokens=False)
    assert worst < most


def test_a_nan_in_one_sequence_leaves_its_neighbours_as_they_were(tmp_path):
    decoders.saved(decoders.llama(), tmp_path)
    engine = qx.build(qx.import_model(tmp_path), device="cuda", tune=False)
    settings = Settings(4, tokens_per_page=4)
    clean = [step.logits for step in engine.generator.steps(PROMPTS, settings)]
    steps = engine.generator.steps(PROMPTS, settings)
    next(steps)
    caches = engine.generator.caches
    page = caches.pages.table(min(caches.pages._sequences))[0]
    for tensor in caches.tensors.values():
        tensor[page] = float("nan")
    for step, want in zip(steps, clean[1:], strict=True):
        poisoned = step.rows.index(0)
        assert step.logits[poisoned].isnan().all()
        others = [i for i in range(len(step.rows)) if i != poisoned]
        assert torch.equal(step.logits[others], want[others])


def test_encode_gives_logits_of_padded_input(tmp_path):
    model = decoders.saved(decoders.llama(), tmp_path)
    engine = qx.build(qx.import_model(tmp_path), device="cuda", tune=False)
    ids, mask = torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 9, dtype=torch.int64)
    for row, prompt in enumerate(decoders.prompts(9, 4)):
        ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
    for _ in range(3):
        got = engine.run({"input_ids": ids, "attention_mask": mask})["logits"]
        for row, length in enumerate((9, 4)):
            with torch.no_grad():
                want = model(ids[row : row + 1, :length]).logits[0]
            assert float((got[row, :length] - want).norm() / want.norm()) < 1e-4
            assert not got[row, length:].any()
    assert all(reads_counts(s.call) for s in engine.compiled.programs["encode"].steps if s.op == "GptAttention")


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_eight_bit_caches_give_what_the_host_gives(kind, tmp_path):
    """The same scales, and the same tokens put in on both."""
    decoders.saved(decoders.llama(), tmp_path)
    model = qx.import_model(tmp_path)
    cache = KvCache(kind, samples=PROMPTS)
    host, gpu = (qx.build(model, kv_cache=cache, device=device, tune=False) for device in ("cpu", "cuda"))
    wanted = list(host.generator.steps(PROMPTS, Settings(6, tokens_per_page=16)))

    def follow(rows, logits):
        return list(next(steps).tokens)

    steps = iter(wanted)
    found = list(gpu.generator.steps(PROMPTS, Settings(6, tokens_per_page=16), follow))
    assert gpu.graphs["reason"] == ""
    for got, want in zip(found, wanted, strict=True):
        # Numbers that lie between two steps of a byte fall either way.
        assert float((got.logits.cpu() - want.logits).norm() / want.logits.norm()) < 2e-2
