"""Constants, shapes and operators that do nothing."""

import pytest
import torch
from apply import Outcome, apply_to, equal

from qontext.fusion import folding, tidy
from qontext.ops.network import Network

X = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))


def _net(opset: int = 20):
    net = Network("snippet", opset=opset)
    return net, net.input("x", "float32", ("B", "S", 8))


def _apply(net: Network, *rules) -> Outcome:
    return apply_to(net.graph, {"x": X}, rules)


def test_chains_of_constants_become_one_constant() -> None:
    net, x = _net()
    two = net.op("Constant", value=torch.tensor(2.0), outputs=1)
    net.output(net.op("Mul", x, net.op("Sqrt", net.op("Add", two, 7.0))), "y")
    outcome = _apply(net, folding.RULE)
    assert outcome.counts == {"Mul": 1}
    assert equal(outcome)
    assert len(outcome.ledger.folded) == 3


def test_only_the_type_of_what_a_constant_is_cast_like_counts() -> None:
    net, x = _net()
    half = net.op("CastLike", net.op("Constant", value=torch.tensor(0.5, dtype=torch.float64), outputs=1), x)
    net.output(net.op("Mul", x, half), "y")
    outcome = _apply(net, folding.RULE)
    assert outcome.counts == {"Mul": 1}
    assert equal(outcome)


def test_sizes_that_never_change_are_constants_and_others_are_not() -> None:
    net, x = _net()
    shape = net.op("Shape", x)
    width = net.op("Gather", shape, torch.tensor(2))
    net.output(net.op("Div", x, net.op("Sqrt", net.op("Cast", width, to=1))), "y")
    net.output(net.op("Gather", shape, torch.tensor(1)), "length")
    outcome = _apply(net, folding.RULE)
    assert outcome.counts == {"Shape": 1, "Gather": 1, "Div": 1}
    assert equal(outcome)


def test_comparisons_of_sizes_are_not_trusted() -> None:
    net, x = _net()
    length = net.op("Gather", net.op("Shape", x), torch.tensor([1]))
    short = net.op("Less", length, torch.tensor([512]))  # true for every size that is tried, but not for all
    net.output(net.op("Where", short, x, net.op("Neg", x)), "y")
    outcome = _apply(net, folding.RULE, tidy.RULE)
    assert outcome.counts == {"Shape": 1, "Gather": 1, "Less": 1, "Neg": 1, "Where": 1}


def test_large_weights_are_not_transposed_by_folding() -> None:
    net, x = _net()
    weight = net.parameter("weight", torch.randn(70_000, 8))
    net.output(net.op("MatMul", x, net.op("Transpose", weight, perm=[1, 0])), "y")
    outcome = _apply(net, folding.RULE)
    assert outcome.counts == {"MatMul": 1, "Transpose": 1}
    assert list(outcome.graph.initializers) == ["weight"]


def test_the_target_of_a_reshape_becomes_a_constant() -> None:
    net, x = _net()
    shape = net.op("Shape", x)
    sizes = [net.op("Slice", shape, torch.tensor([i]), torch.tensor([i + 1])) for i in (0, 1)]
    target = net.op("Concat", *sizes, torch.tensor([2, 4]), axis=0)
    net.output(net.op("Reshape", x, target, allowzero=1), "y")
    outcome = _apply(net, folding.RULE, folding.SHAPES)
    assert outcome.counts == {"Reshape": 1}
    assert outcome.node("Reshape").inputs[1].const_value.numpy().tolist() == [0, 0, 2, 4]
    assert equal(outcome)


def test_the_target_of_an_expand_becomes_a_constant() -> None:
    net, x = _net()
    four = net.op("Unsqueeze", x, torch.tensor([1]))
    sizes = [net.op("Slice", net.op("Shape", x), torch.tensor([i]), torch.tensor([i + 1])) for i in (0, 1)]
    net.output(net.op("Expand", four, net.op("Concat", sizes[0], [3], sizes[1], [8], axis=0)), "y")
    net.output(net.op("Expand", net.op("Slice", x, [0], [1], [1]), net.op("Shape", x)), "stays")
    outcome = _apply(net, folding.RULE, folding.SHAPES)
    first, second = (n for n in outcome.graph if n.op_type == "Expand")
    assert first.inputs[1].const_value.numpy().tolist() == [1, 3, 1, 8]
    assert second.inputs[1].producer().op_type == "Shape"
    assert equal(outcome)


def test_a_reshape_to_two_computed_sizes_stays() -> None:
    net, x = _net()
    rows = net.op("Reshape", x, torch.tensor([-1, 8]))
    sizes = net.op("Slice", net.op("Shape", x), torch.tensor([0]), torch.tensor([2]))
    net.output(net.op("Reshape", rows, net.op("Concat", sizes, torch.tensor([8]), axis=0)), "y")
    outcome = _apply(net, folding.RULE, folding.SHAPES)
    assert outcome.counts == {"Reshape": 2, "Shape": 1, "Slice": 1, "Concat": 1}
    assert outcome.node("Concat")


DO_NOTHING = {
    "identity": lambda net, x: net.op("Identity", x),
    "dropout": lambda net, x: net.op("Dropout", x, 0.1),
    "cast": lambda net, x: net.op("Cast", x, to=1),
    "cast like": lambda net, x: net.op("CastLike", x, x),
    "concat of one": lambda net, x: net.op("Concat", x, axis=0),
    "times one": lambda net, x: net.op("Mul", 1.0, x),
    "by one": lambda net, x: net.op("Div", x, 1.0),
    "plus nothing": lambda net, x: net.op("Add", x, torch.zeros(1)),
    "minus nothing": lambda net, x: net.op("Sub", x, 0.0),
    "transpose": lambda net, x: net.op("Transpose", x, perm=[0, 1, 2]),
    "reshape": lambda net, x: net.op("Reshape", x, torch.tensor([0, -1, 8])),
    "expand": lambda net, x: net.op("Expand", x, torch.tensor([1, 1, 8])),
    "slice": lambda net, x: net.op("Slice", x, torch.tensor([0]), torch.tensor([2**62]), torch.tensor([1])),
    "slice of its own length": lambda net, x: net.op(
        "Slice", x, torch.tensor([0]), net.op("Slice", net.op("Shape", x), torch.tensor([1]), torch.tensor([2])), [1]
    ),
    "where": lambda net, x: net.op("Where", torch.tensor(True), x, 0.0),
}


@pytest.mark.parametrize("name", DO_NOTHING)
def test_what_does_nothing_goes(name: str) -> None:
    net, x = _net()
    net.output(net.op("Relu", DO_NOTHING[name](net, net.op("Neg", x))), "y")
    outcome = _apply(net, tidy.RULE)
    assert outcome.counts == {"Neg": 1, "Relu": 1}
    assert outcome.ledger.removed
    assert equal(outcome)


DO_SOMETHING = {
    "cast": lambda net, x: net.op("Cast", net.op("Cast", x, to=11), to=1),
    "times two": lambda net, x: net.op("Mul", 2.0, x),
    "one minus": lambda net, x: net.op("Sub", 0.0, x),
    "stretches": lambda net, x: net.op("Add", torch.zeros(1, 1, 1, 1), x),
    "first 500": lambda net, x: net.op("Slice", x, torch.tensor([0]), torch.tensor([500]), torch.tensor([1])),
    "transpose": lambda net, x: net.op("Transpose", x, perm=[0, 2, 1]),
    "where": lambda net, x: net.op("Where", torch.tensor([True, False] * 4), x, 0.0),
}


@pytest.mark.parametrize("name", DO_SOMETHING)
def test_what_does_something_stays(name: str) -> None:
    net, x = _net()
    net.output(net.op("Relu", DO_SOMETHING[name](net, net.op("Neg", x))), "y")
    before = net.graph.num_nodes()
    outcome = _apply(net, tidy.RULE)
    assert outcome.graph.num_nodes() == before
    assert equal(outcome)


def test_an_identity_that_names_an_output_stays() -> None:
    net, x = _net()
    y = net.op("Relu", x)
    net.output(y, "y")
    net.output(net.op("Identity", y), "again")
    net.output(net.op("Identity", x), "x_too")
    outcome = _apply(net, tidy.RULE)
    assert outcome.counts == {"Relu": 1, "Identity": 2}
    assert equal(outcome)


def test_two_reshapes_and_two_transposes_become_one() -> None:
    net, x = _net()
    rows = net.op("Reshape", net.op("Reshape", x, torch.tensor([0, 0, 2, 4])), torch.tensor([-1, 8]))
    turned = net.op("Transpose", net.op("Transpose", x, perm=[1, 0, 2]), perm=[2, 1, 0])
    net.output(rows, "rows")
    net.output(turned, "turned")
    outcome = _apply(net, tidy.PAIR)
    assert outcome.counts == {"Reshape": 1, "Transpose": 1}
    assert outcome.node("Reshape").inputs[1].const_value.numpy().tolist() == [-1, 8]
    assert list(outcome.node("Transpose").attributes["perm"].value) == [2, 0, 1]
    assert equal(outcome)


def test_two_reshapes_with_a_shape_that_cannot_be_written_stay() -> None:
    net, x = _net()
    rows = net.op("Reshape", x, torch.tensor([-1, 8]))
    net.output(net.op("Reshape", rows, net.op("Shape", net.op("Transpose", x, perm=[1, 0, 2]))), "y")
    outcome = _apply(net, tidy.PAIR)
    assert outcome.counts["Reshape"] == 2
    assert equal(outcome)
