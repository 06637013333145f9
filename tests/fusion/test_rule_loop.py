"""The loop that applies rules: what is recorded, what is logged, what a rule may not break."""

import onnx_ir as ir
import pytest
import torch
from apply import apply_to
from encoder import encoder, encoder_feeds
from interpret import adopted, check_border, inferred

from qontext.errors import NoFusion
from qontext.fusion.catalogue import FOR_THE_HOST, fuse
from qontext.fusion.rewriter import Rewriter
from qontext.fusion.rule import Conditions, Rule, apply_rule
from qontext.ops.gelu.op import OP as GELU
from qontext.ops.network import Network


def _network() -> Network:
    net = Network("small")
    x = net.input("x", "float32", ("B", 4))
    net.output(net.op("Relu", net.op("Neg", net.op("Relu", x))), "y")
    return net


def _rule(check, rewrite=None, **more) -> Rule:
    return Rule("test", "Nothing.", frozenset({"Relu"}), check, rewrite or (lambda node, found, rewriter: None), **more)


def _rewriter(net: Network) -> Rewriter:
    return Rewriter(net.graph, net.inference, net.ledger())


def test_a_refusal_carries_reason_node_and_depth() -> None:
    net = _network()
    rewriter = _rewriter(net)

    def check(node: ir.Node, rewriter: Rewriter) -> None:
        seen = Conditions(node)
        seen.holds(True, "never")
        neg = seen.found(rewriter.producer(node.inputs[0], "Neg"), "it does not follow a negation")
        seen.holds(False, "the third condition fails", neg)

    applied = apply_rule(_rule(check), rewriter)
    assert (applied.count, applied.refused) == (0, 2)
    first, second = rewriter.ledger.refusals
    assert (first.node, first.reason, first.depth) == ("Relu", "it does not follow a negation", 1)
    assert (second.node, second.depth) == ("Relu_1", 2)
    assert second.reason == "the third condition fails (at Neg 'Neg')"


def test_what_is_no_candidate_is_not_recorded() -> None:
    rewriter = _rewriter(_network())

    def check(node: ir.Node, rewriter: Rewriter) -> None:
        Conditions(node).holds(False, "not of this kind at all")

    assert apply_rule(_rule(check), rewriter).refused == 0
    assert rewriter.ledger.refusals == []


def test_applications_are_counted_logged_and_recorded() -> None:
    net = _network()
    rewriter, lines = _rewriter(net), list[str]()

    def rewrite(node: ir.Node, found: None, rewriter: Rewriter) -> None:
        rewriter.replace("test", [node], GELU, [node.inputs[0]], {"approximate": "tanh"}, [node.outputs[0]])

    applied = apply_rule(_rule(lambda node, rewriter: None, rewrite), rewriter, lines.append)
    assert applied.count == 2
    assert lines == [
        "test: 1 operator (Relu) -> Gelu(tanh)  at Relu",
        "test: 1 operator (Relu) -> Gelu(tanh)  at Relu_1",
    ]
    assert [(f.before, f.after, f.note) for f in rewriter.ledger.fusions] == [(("Relu",), "Gelu", "tanh")] * 2
    check_border(net.graph, rewriter.ledger, "test")


def test_a_replacement_of_another_shape_or_type_is_refused_and_leaves_no_trace() -> None:
    net = _network()
    rewriter = _rewriter(net)
    before = [n.name for n in net.graph]

    def rewrite(node: ir.Node, found: None, rewriter: Rewriter) -> None:
        if node.name == "Relu":
            rewriter.replace("test", [node], "Transpose", [node.inputs[0]], {"perm": [1, 0]}, [node.outputs[0]])
        rewriter.replace("test", [node], "Cast", [node.inputs[0]], {"to": 7}, [node.outputs[0]])

    apply_rule(_rule(lambda node, rewriter: None, rewrite), rewriter)
    reasons = [r.reason for r in rewriter.ledger.refusals]
    assert reasons[0] == "the result 'Relu' is FLOAT[B, 4], fused it would be FLOAT[4, B]"
    assert reasons[1] == "the result 'y' is FLOAT[B, 4], fused it would be INT64[B, 4]"
    assert [n.name for n in net.graph] == before
    check_border(net.graph, rewriter.ledger, "test")


def test_an_operator_that_cannot_take_its_inputs_is_a_refusal() -> None:
    net = _network()
    rewriter = _rewriter(net)

    def rewrite(node: ir.Node, found: None, rewriter: Rewriter) -> None:
        wrong = rewriter.weight("wrong", torch.zeros(3))
        rewriter.replace("test", [node], GELU, [node.inputs[0], wrong], {}, [node.outputs[0]])

    apply_rule(_rule(lambda node, rewriter: None, rewrite), rewriter)
    assert rewriter.ledger.refusals[0].reason.startswith("Gelu cannot take it: ")
    assert "wrong" not in net.graph.initializers


def test_an_output_keeps_its_name_when_its_node_is_replaced_or_removed() -> None:
    net = _network()
    rewriter = _rewriter(net)
    last = net.graph.outputs[0].producer()
    new = rewriter.replace("test", [last], GELU, [last.inputs[0]], {}, [last.outputs[0]])
    assert net.graph.outputs[0] is new.outputs[0]
    assert net.graph.outputs[0].name == "y"
    rewriter.remove(new, new.inputs[0], "for the test")
    assert net.graph.outputs[0].name == "y"
    assert net.graph.outputs[0].producer().op_type == "Neg"
    check_border(net.graph, rewriter.ledger, "test")


def test_derived_weights_are_made_once_and_come_back_after_a_sweep() -> None:
    net = _network()
    rewriter = _rewriter(net)
    source = rewriter.weight("w", torch.ones(4))
    made: list[int] = []

    def make() -> torch.Tensor:
        made.append(1)
        return torch.zeros(4)

    first = rewriter.derived("half", [source], "w.half", make)
    assert rewriter.derived("half", [source], "w.half", make) is first
    rewriter.sweep("for the test")
    assert "w.half" not in net.graph.initializers
    assert rewriter.derived("half", [source], "w.half", make) is first
    assert net.graph.initializers["w.half"] is first
    assert len(made) == 1


@pytest.mark.parametrize("early", [True, False])
def test_rules_of_the_users_run_early_or_late(early: bool) -> None:
    seen: list[str] = []

    def check(node: ir.Node, rewriter: Rewriter) -> None:
        seen.append(node.op_type)
        raise NoFusion("only looking")

    looking = Rule("looking", "Nothing.", frozenset(), check, lambda node, found, rewriter: None, early=early)
    net = encoder(1)
    done = fuse(net.graph, net.ledger(), inferred(net.graph), [looking])
    last = [rule.name for rule in FOR_THE_HOST]
    assert [a.rule for a in done if a.rule not in last][-1] == ("skip_layer_norm" if early else "looking")
    assert ("Attention" in seen) == early
    assert ("QKVToContext" in seen) != early


def test_a_rule_of_the_users_takes_what_ours_would_have_merged() -> None:
    def check(node: ir.Node, rewriter: Rewriter) -> None:
        Conditions(node).holds(rewriter.is_ours(node, "LayerNorm"), "no layer norm")

    def rewrite(node: ir.Node, found: None, rewriter: Rewriter) -> None:
        attributes = {"axis": -1, "epsilon": rewriter.attributes(node)["epsilon"]}
        rewriter.replace("mine", [node], "LayerNormalization", node.inputs, attributes, [node.outputs[0]])

    mine = Rule("mine", "LayerNorm stays an ONNX operator.", frozenset({"LayerNorm"}), check, rewrite, early=True)
    net = encoder(1)
    done = fuse(net.graph, net.ledger(), inferred(net.graph), [mine])
    counts = {a.rule: a.count for a in done}
    assert counts["mine"] == 3
    assert counts["skip_layer_norm"] == counts["embed_layer_norm"] == 0


def test_refusals_of_nodes_that_a_later_rule_took_are_no_misses() -> None:
    net = encoder(1)
    ledger = adopted(net.graph)

    def check(node: ir.Node, rewriter: Rewriter) -> None:
        raise NoFusion("too early", depth=1)

    early = Rule("early", "Nothing.", frozenset(), check, lambda node, found, rewriter: None, early=True)
    fuse(net.graph, ledger, inferred(net.graph), [early])
    live = {n.name for n in net.graph}
    assert ledger.refusals
    assert {r.node for r in ledger.refusals} <= live


def test_every_rule_border_is_legal_and_adds_up() -> None:
    outcome = apply_to(encoder(1).graph, encoder_feeds())  # apply_to checks each border
    rules = {"qkv", "mask_operand", "activation", "embed_layer_norm", "skip_layer_norm"}
    assert {f.rule for f in outcome.ledger.fusions} == rules
