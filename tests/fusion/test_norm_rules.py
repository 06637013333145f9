"""Layer norms and RMS norms, as operators and in parts."""

import itertools

import pytest
import torch
from apply import Outcome, apply_to, equal

from qontext.fusion import norms, skip_norm
from qontext.ops.network import Network

G = torch.Generator().manual_seed(0)
E = 8
X = torch.randn(2, 3, E, generator=G) + 0.3
WEIGHT, BIAS = 1 + 0.2 * torch.randn(E, generator=G), torch.randn(E, generator=G)
RULES = (norms.LAYER, norms.RMS)


def _net(opset: int = 17):
    net = Network("snippet", opset=opset)
    return net, net.input("x", "float32", ("B", "S", E))


def _apply(net: Network, *rules) -> Outcome:
    return apply_to(net.graph, {v.name: X for v in net.graph.inputs}, rules or RULES)


def _mean(net, x, **more):
    return net.op("ReduceMean", x, **{"axes": [-1], **more})


SQUARES = {
    "Pow": lambda net, d: net.op("Pow", d, 2.0),
    "Mul": lambda net, d: net.op("Mul", d, d),
}
DIVISIONS = {
    "Sqrt, Div": lambda net, d, v: net.op("Div", d, net.op("Sqrt", v)),
    "Sqrt, Reciprocal, Mul": lambda net, d, v: net.op("Mul", net.op("Reciprocal", net.op("Sqrt", v)), d),
    "Sqrt, 1 / it, Mul": lambda net, d, v: net.op("Mul", d, net.op("Div", 1.0, net.op("Sqrt", v))),
    "Pow 0.5, Div": lambda net, d, v: net.op("Div", d, net.op("Pow", v, 0.5)),
    "Pow -0.5, Mul": lambda net, d, v: net.op("Mul", d, net.op("Pow", v, -0.5)),
}


def _variance(net, d, square, add_first):
    mean = _mean(net, SQUARES[square](net, d))
    return net.op("Add", 1e-6, mean) if add_first else net.op("Add", mean, 1e-6)


@pytest.mark.parametrize(("square", "division"), list(itertools.product(SQUARES, DIVISIONS)))
@pytest.mark.parametrize("flip", [False, True])
def test_a_layer_norm_in_parts(square: str, division: str, flip: bool) -> None:
    net, x = _net()
    d = net.op("Sub", x, _mean(net, x))
    y = DIVISIONS[division](net, d, _variance(net, d, square, flip))
    weight, bias = net.parameter("weight", WEIGHT), net.parameter("bias", BIAS)
    y = net.op("Mul", weight, y) if flip else net.op("Mul", y, weight)
    net.output(net.op("Add", bias, y) if flip else net.op("Add", y, bias), "y")
    outcome = _apply(net)
    assert outcome.counts == {"LayerNorm": 1}
    assert outcome.node("LayerNorm").attributes["epsilon"].value == pytest.approx(1e-6)
    assert equal(outcome)


def test_a_layer_norm_that_computes_its_difference_twice() -> None:
    net, x = _net()
    first, second = (net.op("Sub", x, _mean(net, x)) for _ in range(2))
    net.output(DIVISIONS["Sqrt, Div"](net, second, _variance(net, first, "Pow", False)), "y")
    outcome = _apply(net)
    assert outcome.counts == {"LayerNorm": 1}
    assert len(outcome.node("LayerNorm").inputs) == 1
    assert equal(outcome)


def test_a_variance_as_mean_of_squares_minus_square_of_mean() -> None:
    net, x = _net()
    mean = _mean(net, x)
    variance = net.op("Sub", _mean(net, net.op("Mul", x, x)), net.op("Mul", mean, mean))
    y = net.op("Div", net.op("Sub", x, mean), net.op("Sqrt", net.op("Add", variance, 1e-5)))
    net.output(net.op("Mul", y, net.parameter("weight", WEIGHT.reshape(1, 1, E))), "y")
    outcome = _apply(net)
    assert outcome.counts == {"LayerNorm": 1}
    assert equal(outcome, 10)  # the difference of two large numbers loses digits, ours does not


@pytest.mark.parametrize(("square", "division"), list(itertools.product(SQUARES, DIVISIONS)))
def test_an_rms_norm_in_parts(square: str, division: str) -> None:
    net, x = _net()
    y = DIVISIONS[division](net, x, _variance(net, x, square, False))
    net.output(net.op("Mul", net.parameter("weight", WEIGHT), y), "y")
    outcome = _apply(net)
    assert outcome.counts == {"RMSNorm": 1}
    assert equal(outcome)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("axis", [-1, 2])
def test_the_operator_layer_normalization(bias: bool, axis: int) -> None:
    net, x = _net()
    parameters = [net.parameter("weight", WEIGHT)] + ([net.parameter("bias", BIAS)] if bias else [])
    net.output(net.op("LayerNormalization", x, *parameters, axis=axis, epsilon=1e-12), "y")
    outcome = _apply(net)
    assert outcome.counts == {"LayerNorm": 1}
    assert len(outcome.node("LayerNorm").inputs) == 2 + bias
    assert equal(outcome)


def test_the_operator_rms_normalization() -> None:
    net, x = _net(23)
    net.output(net.op("RMSNormalization", x, net.parameter("weight", WEIGHT), epsilon=1e-5), "y")
    outcome = _apply(net)
    assert outcome.counts == {"RMSNorm": 1}
    assert equal(outcome)


def _without_epsilon(net, x):
    return net.op("Div", x, net.op("Sqrt", _mean(net, net.op("Mul", x, x))))


def _other_numerator(net, x):
    return net.op("Div", net.op("Neg", x), net.op("Sqrt", net.op("Add", _mean(net, net.op("Mul", x, x)), 1e-5)))


REFUSED = {
    "no epsilon is added": ("rms_norm", _without_epsilon),
    "is not what was squared": ("rms_norm", _other_numerator),
    "not taken over the last axis alone": (
        "rms_norm",
        lambda net, x: DIVISIONS["Sqrt, Div"](net, x, net.op("Add", _mean(net, net.op("Mul", x, x), axes=[1]), 1e-5)),
    ),
    "nothing is divided by the root": (
        "rms_norm",
        lambda net, x: net.op("Exp", net.op("Add", _mean(net, net.op("Mul", x, x)), 1e-5)),
    ),
    "it normalises from axis 1 on": (
        "layer_norm",
        lambda net, x: net.op("LayerNormalization", x, net.parameter("w", torch.ones(3, E)), axis=1),
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_norm_over_the_last_axis(reason: str) -> None:
    rule, build = REFUSED[reason]
    net = Network("snippet", opset=17)
    net.output(build(net, net.input("x", "float32", ("B", 3, E))), "y")
    outcome = _apply(net)
    assert not {"LayerNorm", "RMSNorm"} & outcome.counts.keys()
    assert any(reason in found for found in outcome.reasons(rule)), outcome.ledger.refusals
    assert equal(outcome)


def test_a_layer_norm_whose_mean_is_read_stays() -> None:
    net, x = _net()
    y, mean = net.op("LayerNormalization", x, net.parameter("weight", WEIGHT), outputs=2)
    net.output(y, "y")
    net.output(mean, "mean")
    outcome = _apply(net)
    assert outcome.counts == {"LayerNormalization": 1}
    assert outcome.reasons("layer_norm") == ["mean or deviation are read too"]


def _skip_net(with_bias: bool = True):
    net, x = _net()
    other = net.input("other", "float32", ("B", "S", E))
    norm = [net.parameter("weight", WEIGHT)] + ([net.parameter("bias", BIAS)] if with_bias else [])
    return net, x, other, norm


@pytest.mark.parametrize("with_bias", [True, False])
def test_an_addition_and_the_norm_after_it(with_bias: bool) -> None:
    net, x, other, norm = _skip_net(with_bias)
    net.output(net.layer_norm(net.op("Add", x, other), *norm, epsilon=1e-6), "y")
    outcome = _apply(net, skip_norm.RULE)
    assert outcome.counts == {"SkipLayerNorm": 1}
    assert equal(outcome)


@pytest.mark.parametrize("fresh_first", [True, False])
def test_the_branch_that_is_not_the_linear_layer_is_the_residual_one(fresh_first: bool) -> None:
    net, x, _, norm = _skip_net()
    dense = net.linear(x, net.parameter("w", torch.eye(E)), net.parameter("b", BIAS))
    net.output(net.layer_norm(net.op("Add", *((dense, x) if fresh_first else (x, dense))), *norm), "y")
    outcome = _apply(net, skip_norm.RULE)
    node = outcome.node("SkipLayerNorm")
    assert node.inputs[0] is dense
    assert node.inputs[1] is x
    assert equal(outcome)


def test_the_sum_is_a_second_output_where_it_is_read() -> None:
    net, x, other, norm = _skip_net()
    total = net.op("Add", x, other)
    early = net.op("Relu", total)  # stands before the norm, so the fused operator must come first of all
    net.output(net.op("Add", net.layer_norm(total, *norm), early), "y")
    outcome = _apply(net, skip_norm.RULE)
    assert [n.op_type for n in outcome.graph] == ["SkipLayerNorm", "Relu", "Add"]
    assert outcome.ledger.fusions[0].note.endswith("with the sum")
    assert equal(outcome)


def test_a_row_added_before_becomes_the_bias_of_x() -> None:
    net, x, other, norm = _skip_net()
    shifted = net.op("Add", net.op("Relu", x), net.parameter("b", BIAS))
    net.output(net.layer_norm(net.op("Add", other, shifted), *norm), "y")
    outcome = _apply(net, skip_norm.RULE)
    assert outcome.counts == {"Relu": 1, "SkipLayerNorm": 1}
    assert outcome.node("SkipLayerNorm").inputs[4].name == "b"
    assert equal(outcome)


REFUSED_SKIPS = {
    "its input comes from Relu 'Relu', not from an addition": lambda net, x, o, n: net.layer_norm(
        net.op("Relu", x), *n
    ),
    "its input comes from an input of the graph": lambda net, x, o, n: net.layer_norm(x, *n),
    "is a constant, no residual branch": lambda net, x, o, n: net.layer_norm(
        net.op("Add", x, net.parameter("c", torch.ones(E))), *n
    ),
    "has shape [B, 1, 8], the sum [B, S, 8]": lambda net, x, o, n: net.layer_norm(
        net.op("Add", x, _mean(net, o, axes=[1])), *n
    ),
    "the layer norm has no weight": lambda net, x, o, n: net.layer_norm(net.op("Add", x, o)),
    "are computed at run time": lambda net, x, o, n: net.layer_norm(net.op("Add", x, o), net.op("Relu", n[0])),
}


@pytest.mark.parametrize("reason", REFUSED_SKIPS)
def test_norms_that_follow_no_residual_addition(reason: str) -> None:
    net, x, other, norm = _skip_net()
    net.output(REFUSED_SKIPS[reason](net, x, other, norm), "y")
    outcome = _apply(net, skip_norm.RULE)
    assert "SkipLayerNorm" not in outcome.counts
    assert any(reason in found for found in outcome.reasons("skip_layer_norm")), outcome.ledger.refusals
    assert equal(outcome)
