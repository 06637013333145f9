"""Exported encoders fuse completely, whatever exporter, opset, family and attention they come from."""

import pytest
import torch
from apply import Outcome, apply_to, equal
from exported import SelfAttention, SequenceFirst, encoder, export, exported_encoder, feeds
from interpret import run_graph

import qontext as qx
from qontext.dtypes import relative_rms
from qontext.graph.ledger import ids_of
from qontext.importers.onnx_model import import_onnx

# Captured exports take seconds each, so the default run has a few of them.
TRACED = [("bert", "eager", o) for o in (11, 14, 17)] + [("bert", "sdpa", o) for o in (14, 17)]
TRACED += [(f, a, 14) for f in ("roberta", "distilbert", "electra", "albert") for a in ("eager", "sdpa")]
TRACED += [("mpnet", "eager", 14)]
CAPTURED = [("bert", "eager", 18), ("bert", "sdpa", 20), ("bert", "sdpa", 23)]
OTHER_CAPTURED = [
    (f, a, o)
    for f in ("bert", "roberta", "distilbert", "electra", "albert", "mpnet")
    for a in ("eager", "sdpa")
    for o in (18, 20, 21, 23)
    if (f, a, o) not in CAPTURED and (f, a) != ("mpnet", "sdpa")  # MPNet has no such attention
]
LEFT_BY_POSITIONS = {"Equal", "Not", "CumSum", "Mul", "Add", "Cast"}  # RoBERTa counts the tokens that are no padding
LEFT_BY_BUCKETS = LEFT_BY_POSITIONS | {
    "Shape", "Squeeze", "Range", "Unsqueeze", "Sub", "Neg", "Less", "Abs", "Div", "Log", "Expand", "Min", "Where",
    "Gather", "Transpose", "ConstantOfShape",
}  # fmt: skip
LEFT = {"roberta": LEFT_BY_POSITIONS, "mpnet": LEFT_BY_BUCKETS}


def check(family: str, attention: str, door: str) -> Outcome:
    """Everything fused; the numbers are those of the graph before, wholly masked rows included, and of the module."""
    model = import_onnx(exported_encoder(family, attention, door))
    given = feeds()
    outcome = apply_to(model.graph, given)
    assert equal(outcome)
    with torch.no_grad():
        right = encoder(family, attention)(**given)
    # What torch gives a wholly masked sequence is not always what it exports, so that one is left out here.
    assert relative_rms(run_graph(outcome.graph, given)["y"][:2], right[:2]) < 1e-5
    counts = dict(outcome.counts)
    assert counts.pop("QKVToContext") == 2
    assert counts.pop("EmbedLayerNorm") == 1
    assert counts.pop("SkipLayerNorm") == 4
    assert counts.pop("Linear") == (9 if family in ("electra", "albert") else 8)
    assert counts.keys() <= LEFT.get(family, {"Cast"})
    linears = [n.attributes["activation"].as_string() for n in outcome.graph if n.op_type == "Linear"]
    activation = "gelu_tanh" if family == "albert" else "gelu_erf"
    assert linears.count(activation) == 2
    for node in outcome.graph:
        if node.op_type == "QKVToContext":
            assert node.inputs[2].producer().inputs[0].name == "attention_mask"
            assert (len(node.inputs) > 3) == (family == "mpnet")
    assert not outcome.ledger.refusals
    return outcome


@pytest.mark.parametrize(("family", "attention", "opset"), TRACED)
def test_traced_exports(family: str, attention: str, opset: int) -> None:
    check(family, attention, f"traced-{opset}")


@pytest.mark.parametrize(("family", "attention", "opset"), CAPTURED)
def test_captured_exports(family: str, attention: str, opset: int) -> None:
    check(family, attention, f"captured-{opset}")


@pytest.mark.slow
@pytest.mark.parametrize(("family", "attention", "opset"), OTHER_CAPTURED)
def test_other_captured_exports(family: str, attention: str, opset: int) -> None:
    check(family, attention, f"captured-{opset}")


def test_the_fills_of_masks_decide_about_wholly_masked_rows() -> None:
    for attention, empty_row in (("eager", "uniform"), ("sdpa", "zeros")):  # the lowest float32, and -inf
        model = import_onnx(exported_encoder("bert", attention, "traced-14"))
        outcome = apply_to(model.graph, feeds())
        rows = {n.attributes["empty_row"].as_string() for n in outcome.graph if n.op_type == "QKVToContext"}
        assert rows == {empty_row}


def test_fused_exports_run_on_packed_tokens() -> None:
    model = import_onnx(exported_encoder("bert", "eager", "traced-14"))
    lines: list[str] = []
    engine = qx.build(model, tune=False, log=lines.append)
    assert "padding: 15 nodes run on packed tokens" in lines
    given = feeds()
    real = given["attention_mask"].bool()
    with torch.no_grad():
        right = encoder("bert", "eager")(**given)
    assert relative_rms(engine.run(given)["y"][real], right[real]) < 1e-5


def test_every_node_of_an_export_is_accounted_for() -> None:
    model = import_onnx(exported_encoder("bert", "eager", "traced-14"))
    outcome = apply_to(model.graph, feeds())  # which checks the ledger after each rule
    ledger = outcome.ledger
    live = {i for node in outcome.graph for i in ids_of(node)}
    assert len(ledger.sources) > 200
    assert len(live) + len(ledger.folded) + len(ledger.removed) == len(ledger.sources)
    assert min(len(live), len(ledger.folded), len(ledger.removed)) > 0


@pytest.mark.parametrize("door", ["traced-14", "captured-20"])
def test_the_layer_of_the_notebook_ends_as_three_steps(door: str) -> None:
    torch.manual_seed(0)
    module, x = SelfAttention().eval(), torch.randn(2, 5, 24)
    mask = torch.rand(2, 5, 5) > 0.4
    mask[1, 2] = False
    inputs = {"x": x, "mask": mask}
    axes = {"x": {0: "B", 1: "S"}, "mask": {0: "B", 1: "S", 2: "S"}}
    outcome = apply_to(import_onnx(export(module, inputs, axes, door)).graph, inputs)
    assert [n.op_type for n in outcome.graph] == ["Linear", "QKVToContext", "Linear"]
    first, attend, last = outcome.graph
    assert list(first.inputs[1].shape) == [72, 24]
    assert len(first.inputs) == len(last.inputs) == 3  # both have their bias
    assert attend.attributes["layout"].as_string() == "B S (three N D)"
    assert attend.attributes["empty_row"].as_string() == "uniform"
    assert equal(outcome)
    with torch.no_grad():
        assert relative_rms(run_graph(outcome.graph, inputs)["y"], module(x, mask)) < 1e-5


@pytest.mark.parametrize(
    ("door", "fill"), [("traced-14", -10000.0), ("traced-14", -float("inf")), ("captured-20", -10000.0)]
)
def test_the_sequence_first_layer_of_the_seed(door: str, fill: float) -> None:
    torch.manual_seed(0)
    module, hidden = SequenceFirst().eval(), torch.randn(5, 3, 24)
    mask = torch.zeros(3, 1, 1, 5)
    mask[0, ..., 3:] = fill
    mask[1, ..., 1] = fill
    if fill > -float("inf"):
        mask[2] = fill
    inputs = {"hidden": hidden, "mask": mask}
    axes = {"hidden": {0: "S", 1: "B"}, "mask": {0: "B", 3: "S"}}
    outcome = apply_to(import_onnx(export(module, inputs, axes, door)).graph, inputs)
    assert outcome.counts == {"Linear": 1, "QKVToContext": 1}
    assert outcome.node("QKVToContext").attributes["layout"].as_string() == "S B (three N D)"
    assert equal(outcome)
    with torch.no_grad():
        assert relative_rms(run_graph(outcome.graph, inputs)["y"], module(hidden, mask)) < 1e-5
