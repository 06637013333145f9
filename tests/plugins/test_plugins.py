"""A user's operator in networks, builds, rules, ONNX files and engine files."""

import dataclasses

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from layer_norm_plugin import LAYER_NORM
from layer_norm_rule import RULE

import qontext as qx
from qontext.dtypes import BY_NAME, relative_rms
from qontext.errors import ArgumentError, DTypeError, PluginError, ShapeError, UnsupportedOperatorError
from qontext.fusion.rule import Rule
from qontext.graph.model import InputRule

E, V = 32, 50
TOLERANCE = BY_NAME["float32"].tolerance


def weights(count, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [1.0 + 0.3 * torch.randn(*shape, generator=generator) for _ in range(count)]


def plugin_model(plugin=LAYER_NORM):
    """x -> linear -> the plugin -> y."""
    net = qx.Network("with_plugin", plugins=[plugin])
    x = net.input("x", "float32", ("B", "S", E))
    gamma, beta = (net.parameter(n, w) for n, w in zip(("gamma", "beta"), weights(2, 1, 1, E), strict=True))
    y = net.linear(x, net.parameter("weight", weights(1, E, E, seed=1)[0]))
    net.output(plugin(y, gamma, beta, epsilon=1e-5), "y")
    return qx.Model("with_plugin", net.graph, net.ledger())


def standard_model():
    """Ids -> embedding -> add -> LayerNormalization, as ONNX has it, so that a rule has something to find."""
    net = qx.Network("standard")
    ids = net.input("input_ids", "int64", ("B", "S"))
    x = net.op("Gather", net.parameter("table", weights(1, V, E)[0]), ids)
    gamma, beta = (net.parameter(n, w) for n, w in zip(("gamma", "beta"), weights(2, E, seed=2), strict=True))
    with net.scope("encoder.norm"):
        y = net.layer_norm(net.op("Add", x, x), gamma, beta, epsilon=1e-5)
    net.output(y, "y")
    return qx.Model("standard", net.graph, net.ledger(), {"input_ids": InputRule(limit=V)})


@pytest.fixture(scope="module")
def x():
    return torch.randn(3, 7, E, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def engine():
    return qx.build(plugin_model(), plugins=[LAYER_NORM], tune=False)


def expected(x):
    gamma, beta = weights(2, E)
    return torch.nn.functional.layer_norm(x @ weights(1, E, E, seed=1)[0].T, (E,), gamma, beta, 1e-5)


def test_runs_in_a_network(engine, x):
    assert relative_rms(engine.run({"x": x})["y"], expected(x)) < TOLERANCE
    steps = {step.op: step.kernel for step in engine.compiled.programs["encode"].steps}
    assert steps["LayerNormPlugin"] == "homework.layer_norm"


def test_runs_in_bf16(x):
    low = qx.build(plugin_model(), "bf16", plugins=[LAYER_NORM], tune=False)
    (step,) = [s for s in low.compiled.programs["encode"].steps if s.op == "LayerNormPlugin"]
    assert step.call.inputs[0].dtype == step.call.outputs[0].dtype == "bfloat16"
    assert relative_rms(low.run({"x": x})["y"], expected(x)) < BY_NAME["bfloat16"].tolerance


def test_computes_at_once_on_tensors(x):
    gamma, beta = weights(2, 1, 1, E)
    want = torch.nn.functional.layer_norm(x, (E,), gamma.flatten(), beta.flatten(), 1e-12)
    assert relative_rms(LAYER_NORM(x, gamma, beta), want) < TOLERANCE


def test_kernels_of_a_plugin_are_timed():
    slow = dataclasses.replace(LAYER_NORM.kernels[0], name="homework.other")
    two = dataclasses.replace(LAYER_NORM, kernels=(*LAYER_NORM.kernels, slow))
    engine = qx.build(plugin_model(two), plugins=[two])
    (step,) = [s for s in engine.compiled.programs["encode"].steps if s.op == "LayerNormPlugin"]
    assert {name for name, _ in step.timings} == {"homework.layer_norm", "homework.other"}


def test_a_plugin_of_which_only_the_reference_is_given_runs(x):
    bare = dataclasses.replace(LAYER_NORM, kernels=())
    engine = qx.build(plugin_model(bare), plugins=[bare], tune=False)
    assert relative_rms(engine.run({"x": x})["y"], expected(x)) < TOLERANCE


def test_a_rule_of_the_users_puts_it_into_a_graph():
    ids = torch.randint(0, V, (2, 9), generator=torch.Generator().manual_seed(4))
    lines = []
    ours = qx.build(standard_model(), tune=False)
    theirs = qx.build(standard_model(), plugins=[LAYER_NORM], rules=[RULE], tune=False, log=lines.append)
    assert any(s.op == "LayerNormPlugin" for s in theirs.compiled.programs["encode"].steps)
    assert relative_rms(theirs.run({"input_ids": ids})["y"], ours.run({"input_ids": ids})["y"]) < TOLERANCE
    (record,) = [f for f in theirs.compiled.ledger.fusions if f.rule == RULE.name]
    assert record.before == ("LayerNorm",)
    assert record.origin == "encoder.norm"
    assert any(line.startswith("layer_norm_plugin: 1 operator (LayerNorm) -> LayerNormPlugin") for line in lines)


def test_an_engine_that_a_rule_changed_is_saved_and_written_as_onnx(tmp_path):
    ids = np.arange(6, dtype=np.int64).reshape(2, 3)
    engine = qx.build(standard_model(), plugins=[LAYER_NORM], rules=[RULE], tune=False)
    want = torch.from_numpy(engine.run({"input_ids": ids})["y"])
    engine.save(tmp_path / "model.qx")
    loaded = qx.load(tmp_path / "model.qx", plugins=[LAYER_NORM])
    assert torch.equal(torch.from_numpy(loaded.run({"input_ids": ids})["y"]), want)
    engine.save_onnx(tmp_path / "fused.onnx")
    imports = {o.domain: o.version for o in onnx.load(tmp_path / "fused.onnx").opset_import}
    assert imports["homework"] == 1
    session = ort.InferenceSession(str(tmp_path / "fused.onnx"), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"input_ids": ids})
    assert relative_rms(torch.from_numpy(got), want) < TOLERANCE


def test_a_refusal_of_the_rule_is_recorded_with_its_reason():
    net = qx.Network("flat")
    x = net.input("x", "float32", ("T", E))
    net.output(net.layer_norm(x, net.parameter("gamma", torch.ones(E)), net.parameter("beta", torch.zeros(E))), "y")
    engine = qx.build(qx.Model("flat", net.graph, net.ledger()), plugins=[LAYER_NORM], rules=[RULE], tune=False)
    (refusal,) = [r for r in engine.compiled.ledger.refusals if r.rule == RULE.name]
    assert refusal.reason == "its input has 2 axes, the plugin takes 3"


def test_a_rule_without_its_plugin_is_an_error():
    with pytest.raises(UnsupportedOperatorError, match=r"'LayerNormPlugin' of domain 'homework'.*plugins=\["):
        qx.build(standard_model(), rules=[RULE], tune=False)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (RULE, "expected a list of rules"),
        ([lambda node: None], "is a function, expected a qontext.fusion.rule.Rule"),
        ([RULE, RULE], "rule 'layer_norm_plugin' exists already"),
        ([Rule("skip_layer_norm", "", frozenset(), RULE.check, RULE.rewrite)], "rule 'skip_layer_norm' exists"),
    ],
)
def test_rules_are_checked(rules, said):
    with pytest.raises(ArgumentError, match=said):
        qx.build(standard_model(), plugins=[LAYER_NORM], rules=rules, tune=False)


def test_padding_is_put_back_for_a_plugin_that_mixes_tokens():
    """Packing knows nothing about the plugin: it gets the padded tensor, and the rest stays packed."""
    net = qx.Network("packed", plugins=[LAYER_NORM])
    ids, _ = (net.input(n, "int64", ("B", "S")) for n in ("input_ids", "attention_mask"))
    table, square = weights(1, V, E)[0], weights(1, E, E, seed=1)[0]
    gamma, beta = (net.parameter(n, w) for n, w in zip(("gamma", "beta"), weights(2, E, seed=2), strict=True))
    x = net.embed_layer_norm(ids, net.parameter("table", table), weight=gamma, bias=beta)
    x = net.linear(x, net.parameter("first", square))
    row, shift = (net.parameter(f"{v.name}.row", torch.ones(1, 1, E)) for v in (gamma, beta))
    x = LAYER_NORM(x, row, shift)
    net.output(net.linear(x, net.parameter("second", square)), "y")
    rules = {"input_ids": InputRule(limit=V), "attention_mask": InputRule("ones")}
    model = qx.Model("packed", net.graph, net.ledger(), rules, attention_mask="attention_mask")
    packed, padded = (qx.build(model, plugins=[LAYER_NORM], tune=False, packing=p) for p in (True, False))
    assert any(s.op == "UnpackTokens" for s in packed.compiled.programs["encode"].steps)
    given = {"input_ids": torch.randint(0, V, (2, 6)), "attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2])}
    real = given["attention_mask"].bool()
    assert relative_rms(packed.run(given)["y"][real], padded.run(given)["y"][real]) < TOLERANCE


def test_save_and_load(engine, x, tmp_path):
    engine.save(tmp_path / "model.qx")
    loaded = qx.load(tmp_path / "model.qx", plugins=[LAYER_NORM])
    assert torch.equal(loaded.run({"x": x})["y"], engine.run({"x": x})["y"])


def test_load_without_the_plugin_or_with_another_version_is_an_error(engine, tmp_path):
    engine.save(tmp_path / "model.qx")
    with pytest.raises(PluginError, match=r"operator 'LayerNormPlugin' version 1 is missing.*load\(\.\.\., plugins="):
        qx.load(tmp_path / "model.qx")
    newer = dataclasses.replace(LAYER_NORM, version=2)
    with pytest.raises(PluginError, match=r"is version 2 of domain 'homework', the engine was built with version 1"):
        qx.load(tmp_path / "model.qx", plugins=[newer])
    foreign = dataclasses.replace(LAYER_NORM, domain="elsewhere")
    with pytest.raises(PluginError, match="of domain 'elsewhere', the engine was built with version 1 of 'homework'"):
        qx.load(tmp_path / "model.qx", plugins=[foreign])
    with pytest.raises(PluginError, match="'layer_norm' is a str, expected"):
        qx.load(tmp_path / "model.qx", plugins=["layer_norm"])


def test_an_engine_asks_only_for_plugins_that_it_uses(tmp_path):
    engine = qx.build(standard_model(), plugins=[LAYER_NORM], tune=False)
    engine.save(tmp_path / "model.qx")
    assert qx.load(tmp_path / "model.qx").output_names == ["y"]


def test_build_without_the_plugin_is_an_error():
    with pytest.raises(qx.errors.GraphError, match="unknown operator homework::LayerNormPlugin"):
        qx.build(plugin_model(), tune=False)


def test_an_onnx_file_may_use_it(x, tmp_path):
    gamma, beta = weights(2, 1, 1, E)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("LayerNormPlugin", ["x", "gamma", "beta"], ["y"], domain="homework", epsilon=1e-5)],
        "custom",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["B", "S", E])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["B", "S", E])],
        [onnx.numpy_helper.from_array(t.numpy(), n) for n, t in (("gamma", gamma), ("beta", beta))],
    )
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("homework", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=8), tmp_path / "custom.onnx")
    with pytest.raises(UnsupportedOperatorError, match=r"plugins=\[(?s:.*)homework::LayerNormPlugin"):
        qx.import_model(tmp_path / "custom.onnx")
    model = qx.import_model(tmp_path / "custom.onnx", plugins=[LAYER_NORM])
    got = qx.build(model, plugins=[LAYER_NORM], tune=False).run({"x": x})["y"]
    want = torch.nn.functional.layer_norm(x, (E,), gamma.flatten(), beta.flatten(), 1e-5)
    assert relative_rms(got, want) < TOLERANCE


def test_a_body_makes_the_saved_onnx_model_run_elsewhere(engine, x, tmp_path):
    engine.save_onnx(tmp_path / "fused.onnx")
    session = ort.InferenceSession(str(tmp_path / "fused.onnx"), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": x.numpy()})
    assert relative_rms(torch.from_numpy(got), expected(x)) < TOLERANCE


def test_wrong_inputs_name_the_tensor_what_it_got_and_what_was_expected():
    net = qx.Network("wrong", plugins=[LAYER_NORM])
    x = net.input("x", "float32", ("B", "S", E))
    gamma = net.parameter("gamma", torch.ones(1, 1, E))
    with pytest.raises(ShapeError, match=r"'gamma' has shape \[32\]; allowed: \[1 1 E\] needs 3 axes, has 1"):
        LAYER_NORM(x, torch.ones(E), gamma)
    with pytest.raises(ShapeError, match=r"'beta' has shape \[1, 1, 31\].*axis E is 32 elsewhere and 31 here"):
        LAYER_NORM(x, gamma, torch.ones(1, 1, E - 1))
    with pytest.raises(ShapeError, match="input 'beta' is missing"):
        LAYER_NORM(x, gamma)
    with pytest.raises(DTypeError, match="'beta' is int64, expected float32 or float16 or bfloat16"):
        LAYER_NORM(x, gamma, torch.ones(1, 1, E, dtype=torch.int64))
    with pytest.raises(DTypeError, match="'gamma' is bfloat16, but float32 is used elsewhere"):
        LAYER_NORM(x, torch.ones(1, 1, E, dtype=torch.bfloat16), gamma)
    with pytest.raises(ArgumentError, match="attribute 'epsilon' is 'small'"):
        LAYER_NORM(x, gamma, gamma, epsilon="small")
    with pytest.raises(ArgumentError, match=r"'gamma' is a ndarray, expected a torch\.Tensor"):
        LAYER_NORM(torch.ones(1, 2, E), np.ones((1, 1, E)), torch.ones(1, 1, E))
    assert net.graph.num_nodes() == 0, "a refused call leaves nothing behind"
    assert not x.uses() and not gamma.uses(), "nobody reads the inputs of a refused call"
