"""Compare finds the step that is wrong, and the steps that only inherit."""

import pytest
import torch
from exported import encoder
from report_models import bert

import qontext as qx
from qontext.errors import ArgumentError, InputError
from qontext.report.compare import compare
from qontext.runtime.executors import executor_for


def scaled(run, factor):
    """A kernel that gives `factor` times what it should."""

    def wrong(inputs, out=None):
        result = run(inputs, out)
        for tensor in result if isinstance(result, tuple) else (result,):
            if tensor is not None:
                tensor.mul_(factor)
        return result

    return wrong


def broken(model, op, nth, factor):
    """An engine in which one step gives `factor` times what it should; returns the position of the step too."""
    engine = qx.build(model, tune=False)
    program = engine.compiled.programs["encode"]
    index = [i for i, s in enumerate(program.steps) if s.op == op][nth]
    run = program.steps[index].run
    program.steps[index].run = scaled(run, factor)
    engine._executors["encode"] = executor_for(program, False)
    return engine, index


def test_a_right_engine_is_right_everywhere(model, engine):
    found = compare(model, engine)
    assert found.ok and found.data["first_beyond"] is None and found.data["bisection"] is None
    compared = [r for r in found.data["rows"] if r["error"] is not None]
    ops = {r["op"] for r in compared}
    assert {"EmbedLayerNorm", "Linear", "QKVToContext", "SkipLayerNorm", "LayerNorm"} <= ops
    assert 0 < max(r["error"] for r in compared) < 1e-5
    assert all(r["own"] is not None for r in compared)
    new = {"PackIndex", "PackTokens", "UnpackTokens"}
    assert {r["op"] for r in found.data["rows"] if r["error"] is None} == new
    assert "all outputs are within the tolerance" in str(found)


@pytest.mark.parametrize(("op", "nth"), [("Linear", 3), ("QKVToContext", 1), ("SkipLayerNorm", 0)])
def test_the_wrong_step_is_named(model, op, nth):
    engine, index = broken(model, op, nth, 1.05)
    found = compare(model, engine)
    assert not found.ok
    assert found.data["wrong_by_itself"] == [index]
    assert found.data["first_beyond"] == index
    assert found.data["bisection"]["step"] == index
    assert len(found.data["bisection"]["runs"]) <= 8
    row = found.data["rows"][index]
    assert row["own"] == pytest.approx(0.05, rel=1e-2) and row["error"] == pytest.approx(0.05, rel=1e-2)
    assert "first beyond the tolerance  <- wrong by itself" in str(found)


def test_of_two_wrong_steps_bisection_names_the_last_one(model):
    engine, first = broken(model, "Linear", 1, 1.02)
    program = engine.compiled.programs["encode"]
    last = max(i for i, s in enumerate(program.steps) if s.op == "QKVToContext")
    run = program.steps[last].run
    program.steps[last].run = scaled(run, 0.9)
    engine._executors["encode"] = executor_for(program, False)
    found = compare(model, engine)
    assert found.data["wrong_by_itself"] == [first, last]
    assert found.data["first_beyond"] == first
    assert found.data["bisection"]["step"] == last


def test_lower_precision_shows_how_the_error_grows(model):
    found = compare(model, qx.build(model, "bf16", tune=False))
    assert found.ok
    rows = [r for r in found.data["rows"] if r["error"] is not None]
    assert rows[0]["error"] < rows[-1]["error"]
    assert 1e-3 < rows[-1]["error"] < 5e-2
    assert all(r["own"] < 1e-2 for r in rows)
    assert not compare(model, qx.build(model, "bf16", tune=False), tolerance=1e-6).ok


def test_exported_graphs_and_ragged_data(engine, model):
    module = encoder("bert", "sdpa")
    examples = dict.fromkeys(("input_ids", "attention_mask"), torch.ones(2, 7, dtype=torch.long))
    exported = qx.import_model(module, example_inputs=examples)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 1, 0]])
    ids = torch.randint(0, 99, (3, 5), generator=torch.Generator().manual_seed(0))
    for source, built in ((exported, qx.build(exported, tune=False)), (model, engine)):
        found = compare(source, built, {"input_ids": ids, "attention_mask": mask})
        assert found.ok and found.data["compared"] >= 15, str(found)


def test_a_saved_engine_and_no_packing(model, engine, tmp_path):
    engine.save(tmp_path / "m.qx")
    assert compare(model, qx.load(tmp_path / "m.qx")).ok
    plain = compare(model, qx.build(model, tune=False, packing=False))
    assert plain.ok and plain.data["compared"] >= 24


def test_another_model_is_refused(engine, model, tmp_path):
    other = qx.import_model(bert(tmp_path, layers=2))
    with pytest.raises(ArgumentError, match="not built from this model"):
        compare(other, engine)
    with pytest.raises(InputError, match="unknown input"):
        compare(model, engine, {"ids": torch.ones(1, 2)})
    with pytest.raises(ArgumentError, match="must be above 0"):
        compare(model, engine, tolerance=0)
