"""Generation on a GPU's executor without one: landing, rounded sizes, replays, caches that stay where they are."""

import decoders
import gpu_fake
import pytest
import torch

import qontext as qx
from qontext.generation.beam import Beams
from qontext.generation.loop import Settings
from qontext.runtime.buckets import round_rows
from qontext.runtime.gpu_executor import GpuExecutor

PROMPTS = decoders.prompts(3, 11, 1, 7, 5)


@pytest.fixture(params=[pytest.param("gpt2", marks=pytest.mark.slow), "llama"])
def both(request, tmp_path, monkeypatch):
    """A model, and its engine on the fake GPU."""
    model = decoders.saved(getattr(decoders, request.param)(), tmp_path)
    gpu_fake.fake_gpu(monkeypatch)
    return model, qx.build(qx.import_model(tmp_path), device="cuda", tune=False)


def decode_of(engine) -> GpuExecutor:
    found = engine._executors["decode"]
    assert isinstance(found, GpuExecutor)
    return found


def test_replayed_steps_equal_transformers(both):
    """Five sequences in graphs of eight rows; every replay finds NaN in all memory that it should write first."""
    model, engine = both
    settings = Settings(8, tokens_per_page=4, prefill_tokens=8)
    worst, paged = decoders.worst_step(engine, model, PROMPTS, settings)
    assert worst < 1e-5
    executor = decode_of(engine)
    captured = engine.graphs["captured"]
    assert engine.graphs["reason"] == ""
    assert [g["sizes"] for g in captured] == [
        str((("page", 4), ("pages", engine.generator.caches.pages.count), ("rows", 8), ("table", width)))
        for width in (4, 8)
    ]
    assert sum(g["replays"] for g in captured) == 7
    assert executor.last is not None
    assert engine.generate(PROMPTS, 8, tokens_per_page=0) == paged
    assert len(engine.graphs["captured"]) == 1, "graphs of caches that are gone are let go"


def test_contexts_are_launched_with_counts_on_the_host(both):
    _, engine = both
    executor = engine._executors["prefill"]
    assert isinstance(executor, GpuExecutor)
    assert executor.graphs.reason.endswith(
        "attention in the context phase reads the counts of its sequences on the host"
    )
    seen = []
    generator = engine.generator
    next(generator.steps(PROMPTS, Settings(1)))
    caches = generator.caches
    sequence = caches.open()
    caches.extend(sequence, 5)
    inputs = {
        "input_ids": torch.tensor([4, 8, 1, 0, 3]),
        "query_lengths": torch.tensor([5], dtype=torch.int32),
        "past_lengths": torch.tensor([0], dtype=torch.int32),
        "block_table": caches.table([sequence]),
        "position_ids": torch.arange(5),
    }
    given = {n: t for n, t in inputs.items() if n in executor.program.inputs} | caches.tensors
    executor.run(given, lambda step, results: seen.append(step.op))
    assert seen.count("GptAttention") == 3


def test_rows_are_rounded_to_few_sizes():
    assert [round_rows(n) for n in (1, 2, 3, 5, 9, 33, 64, 65, 100, 129)] == [1, 2, 4, 8, 16, 64, 64, 80, 112, 160]


def test_explain_tells_of_steps_on_a_gpu(both):
    """Phase, layout and bytes a token of every cache; graphs of steps; why a context has none."""
    _, engine = both
    told = qx.explain(engine, batch=2, length=9, program="decode")
    assert {(r["phase"], r["layout"]) for r in told.data["caches"]} == {("generation", "paged")}
    steps = [s for s in told.data["steps"] if s["op"] == "GptAttention"]
    assert all(s["us"] > 0 and s["bytes"] > 0 for s in steps)
    assert told.data["graphs"]["reason"] == ""
    assert told.data["graphs"]["steps"] == len(engine.compiled.programs["decode"].steps)


@pytest.mark.parametrize("page", [0, 4])
def test_beams_go_through_graphs(page, tmp_path, monkeypatch):
    """Three beams each of five prompts, whose number is not rounded; as on the host."""
    decoders.saved(decoders.llama(), tmp_path)
    host = qx.build(qx.import_model(tmp_path), tune=False)
    gpu_fake.fake_gpu(monkeypatch)
    engine = qx.build(qx.import_model(tmp_path), device="cuda", tune=False)
    settings, beams = Settings(6, tokens_per_page=page), Beams(3)
    found, wanted = (e.generator.search(PROMPTS, settings, beams) for e in (engine, host))
    assert [[h.tokens for h in results] for results in found] == [[h.tokens for h in results] for results in wanted]
    if page:
        assert engine.graphs["captured"]
        return
    executor = engine._executors["beams"]
    assert isinstance(executor, GpuExecutor)
    assert executor.graphs.reason == ""
    assert all("('beams', 3)" in g["sizes"] and "('rows', 15)" in g["sizes"] for g in executor.graphs.rows()[:1])
