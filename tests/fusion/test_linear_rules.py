"""Products with constants, biases, rows and activations become Linear."""

import pytest
import torch
from apply import Outcome, apply_to, equal

from qontext.fusion import activation, gelu, products
from qontext.ops.network import Network

G = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, 8, generator=G)
W = torch.randn(8, 5, generator=G)
BIAS = torch.randn(5, generator=G)


def _net():
    net = Network("snippet", opset=20)
    return net, net.input("x", "float32", ("B", "S", 8))


def _apply(net: Network, *rules) -> Outcome:
    return apply_to(net.graph, {v.name: X for v in net.graph.inputs}, rules)


def test_a_product_with_a_constant_matrix() -> None:
    net, x = _net()
    net.output(net.op("MatMul", x, net.parameter("dense.weight", W)), "y")
    outcome = _apply(net, products.RULE)
    assert outcome.counts == {"Linear": 1}
    assert outcome.node("Linear").inputs[1].name == "dense.weight.transposed"
    assert equal(outcome)


def test_a_product_with_a_transposed_weight_keeps_the_weight() -> None:
    net, x = _net()
    weight = net.parameter("tied", W.t().contiguous())
    net.output(net.op("MatMul", x, net.op("Transpose", weight, perm=[1, 0])), "y")
    outcome = _apply(net, products.RULE)
    assert outcome.counts == {"Linear": 1}
    assert outcome.node("Linear").inputs[1] is weight
    assert equal(outcome)


def test_layers_that_share_a_weight_share_the_transposed_one() -> None:
    net, x = _net()
    weight = net.parameter("shared", torch.randn(8, 8, generator=G))
    net.output(net.op("MatMul", net.op("MatMul", x, weight), weight), "y")
    outcome = _apply(net, products.RULE)
    first, second = list(outcome.graph)
    assert first.inputs[1] is second.inputs[1]
    assert list(outcome.graph.initializers) == ["shared.transposed"]
    assert equal(outcome)


@pytest.mark.parametrize(
    ("attributes", "weight", "addend"),
    [
        ({}, W, BIAS),
        ({"transB": 1}, W.t().contiguous(), BIAS.reshape(1, 5)),
        ({"transB": 1, "alpha": 0.5, "beta": 2.0}, W.t().contiguous(), BIAS),
        ({"alpha": 2.0}, W, None),
    ],
)
def test_gemm(attributes, weight, addend) -> None:
    net = Network("snippet", opset=20)
    x = net.input("x", "float32", ("T", 8))
    inputs = [x, net.parameter("w", weight)] + ([net.parameter("b", addend)] if addend is not None else [])
    net.output(net.op("Gemm", *inputs, **attributes), "y")
    outcome = apply_to(net.graph, {"x": X[0]}, [products.RULE])
    assert outcome.counts == {"Linear": 1}
    assert equal(outcome)


REFUSED_PRODUCTS = {
    "a weight has two axes": lambda net, x: net.op("MatMul", x, net.parameter("w", torch.randn(8, 8, 5))),
    "both operands are constants": lambda net, x: net.op("MatMul", net.parameter("v", X[0]), net.parameter("w", W)),
    "its first operand is transposed": lambda net, x: net.op("Gemm", x, net.parameter("w", W), transA=1),
    "is not one constant for each of 5 features": lambda net, x: net.op(
        "Gemm", x, net.parameter("w", W), net.parameter("c", torch.randn(8, 5))
    ),
}


@pytest.mark.parametrize("reason", REFUSED_PRODUCTS)
def test_products_that_are_no_linear_layer(reason: str) -> None:
    net = Network("snippet", opset=20)
    net.output(REFUSED_PRODUCTS[reason](net, net.input("x", "float32", (8, 8))), "y")
    outcome = apply_to(net.graph, {"x": torch.randn(8, 8, generator=G)}, [products.RULE])
    assert "Linear" not in outcome.counts
    assert any(reason in found for found in outcome.reasons("linear")), outcome.reasons("linear")
    assert equal(outcome)


def test_products_of_two_computed_values_are_no_candidates() -> None:
    net, x = _net()
    net.output(net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1])), "y")
    outcome = _apply(net, products.RULE)
    assert outcome.counts == {"MatMul": 1, "Transpose": 1}
    assert outcome.reasons("linear") == []


@pytest.mark.parametrize("bias_first", [True, False])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1, 5)])
def test_a_bias_on_either_side(bias_first: bool, shape: tuple[int, ...]) -> None:
    net, x = _net()
    y, bias = net.op("MatMul", x, net.parameter("w", W)), net.parameter("b", BIAS.reshape(shape))
    net.output(net.op("Add", bias, y) if bias_first else net.op("Add", y, bias), "y")
    outcome = _apply(net, products.RULE, activation.BIAS)
    assert outcome.counts == {"Linear": 1}
    assert list(outcome.node("Linear").inputs[2].shape) == [5]
    assert equal(outcome)


def _linear(net, x, bias: bool = False, **attributes):
    return net.linear(
        x, net.parameter("w", W.t().contiguous()), net.parameter("b", BIAS) if bias else None, **attributes
    )


REFUSED_BIASES = {
    "the linear layer has a bias already": lambda net, x: net.op(
        "Add", _linear(net, x, True), net.parameter("c", BIAS)
    ),
    "the activation relu stands between": lambda net, x: net.op(
        "Add", _linear(net, x, activation="relu"), net.parameter("c", BIAS)
    ),
    "is not one number for each of 5 features": lambda net, x: net.op(
        "Add", _linear(net, x), net.parameter("c", torch.randn(1))
    ),
    "changes the shape": lambda net, x: net.op("Add", _linear(net, x), net.parameter("c", BIAS.reshape(1, 1, 1, 5))),
    "read elsewhere too": lambda net, x: net.op("Add", *(2 * [_linear_read_twice(net, x)])),
}


def _linear_read_twice(net, x):
    y = _linear(net, x)
    net.output(net.op("Relu", y), "other")
    return net.op("Add", y, net.parameter("c", BIAS))


@pytest.mark.parametrize("reason", REFUSED_BIASES)
def test_additions_that_are_no_bias(reason: str) -> None:
    net, x = _net()
    net.output(REFUSED_BIASES[reason](net, x), "y")
    outcome = _apply(net, activation.BIAS)
    assert any(reason in found for found in outcome.reasons("bias")), outcome.reasons("bias")
    assert equal(outcome)


def test_rows_around_a_linear_layer_go() -> None:
    net, x = _net()
    rows = net.op("Reshape", x, torch.tensor([-1, 8]))
    net.output(net.op("Reshape", _linear(net, rows, True), net.op("Concat", *_sizes(net, x), [5], axis=0)), "y")
    outcome = _apply(net, products.ROWS)
    assert outcome.counts == {"Linear": 1}
    assert equal(outcome)


def _sizes(net, x):
    shape = net.op("Shape", x)
    return [net.op("Slice", shape, torch.tensor([i]), torch.tensor([i + 1])) for i in (0, 1)]


def test_rows_that_are_not_put_back_stay() -> None:
    net, x = _net()
    rows = net.op("Reshape", x, torch.tensor([-1, 8]))
    net.output(net.op("Reshape", _linear(net, rows), net.op("Concat", _sizes(net, x)[1], [-1, 5], axis=0)), "y")
    outcome = _apply(net, products.ROWS)
    assert outcome.counts["Reshape"] == 2
    assert outcome.reasons("rows") == ["the Reshape after it gives [S, B, 5], not [B, S, 5] (at Reshape 'Reshape_1')"]


ACTIVATIONS = {
    "relu": lambda net, y: net.op("Relu", y),
    "gelu_erf": lambda net, y: net.gelu(y),
    "gelu_tanh": lambda net, y: net.gelu(y, approximate="tanh"),
    "silu": lambda net, y: net.op("Mul", net.op("Sigmoid", y), y),
    "silu as Swish": lambda net, y: net.op("Swish", y),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_join_the_linear_layer(name: str) -> None:
    net, x = _net()
    net.output(ACTIVATIONS[name](net, _linear(net, x, True)), "y")
    outcome = _apply(net, activation.RULE)
    assert outcome.counts == {"Linear": 1}
    assert outcome.node("Linear").attributes["activation"].as_string() == name.split(" ")[0]
    assert outcome.ledger.fusions[0].note == name.split(" ")[0]
    assert equal(outcome)


REFUSED_ACTIVATIONS = {
    "comes from Neg 'Neg', not from a linear layer": lambda net, x: net.op("Relu", net.op("Neg", x)),
    "comes from an input of the graph, not": lambda net, x: net.op("Relu", x),
    "has the activation relu already": lambda net, x: net.gelu(_linear(net, x, activation="relu")),
    "the GELU has a bias of its own": lambda net, x: net.gelu(_linear(net, x), net.parameter("c", BIAS)),
    "alpha is 1.5": lambda net, x: net.op("Swish", _linear(net, x), alpha=1.5),
    "so it is no SiLU": lambda net, x: net.op("Mul", net.op("Sigmoid", _linear(net, x)), 2.0),
    "is also read by Neg": lambda net, x: _read_twice(net, _linear(net, x)),
}


def _read_twice(net, y):
    net.output(net.op("Neg", y), "other")
    return net.op("Relu", y)


@pytest.mark.parametrize("reason", REFUSED_ACTIVATIONS)
def test_activations_that_stay(reason: str) -> None:
    net, x = _net()
    net.output(REFUSED_ACTIVATIONS[reason](net, x), "y")
    outcome = _apply(net, activation.RULE)
    assert any(reason in found for found in outcome.reasons("activation")), outcome.reasons("activation")
    assert equal(outcome)


def test_the_whole_feed_forward_block_of_an_export() -> None:
    net, x = _net()
    y = net.op("Add", net.op("MatMul", x, net.parameter("w", W)), net.parameter("b", BIAS))
    half = net.op("Mul", y, 0.5)
    net.output(net.op("Mul", half, net.op("Add", net.op("Erf", net.op("Div", y, 2**0.5)), 1.0)), "y")
    outcome = _apply(net, products.RULE, activation.BIAS, gelu.RULE, activation.RULE)
    assert outcome.counts == {"Linear": 1}
    assert equal(outcome)
