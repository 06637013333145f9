"""Chains of reshapes and transposes are understood as what they do to real tensors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpret import adopted, inferred, run_graph

from qontext.fusion.rewriter import Rewriter
from qontext.fusion.views import Atom, flat, follow, quotient, size_of, trace
from qontext.graph.dims import Dim
from qontext.ops.network import Network

SIZES = {"B": 2, "S": 3}


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[str, list[int | str]]]:
    """Random transposes and reshapes of [B, S, 12]; reshapes are given as groups of axes to join or a cut."""
    return draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("transpose"), st.permutations(list(range(9)))),
                st.tuples(st.just("join"), st.integers(0, 3)),
                st.tuples(st.just("cut"), st.sampled_from([2, 3, 4, 6])),
                st.tuples(st.just("one"), st.integers(0, 3)),
            ),
            max_size=6,
        )
    )


def _built(chain):
    """The graph of a chain and its input and output values; steps that do not fit are left out."""
    net = Network("chain")
    x = value = net.input("x", "float32", ("B", "S", 12))
    for kind, choice in chain:
        shape = net.shape(value)
        if kind == "transpose":
            order = [i for i in choice if i < len(shape)]
            value = net.op("Transpose", value, perm=order)
        elif kind == "join" and choice + 1 < len(shape):
            value = net.op("Reshape", value, _joined(net, value, choice))
        elif kind == "cut":
            at = next((i for i, d in enumerate(shape) if isinstance(d, int) and d % choice == 0 and d > 1), None)
            if at is not None:
                value = net.op("Reshape", value, _target(net, value, at, [choice, shape[at] // choice]))
        elif kind == "one" and choice <= len(shape):
            value = net.op("Unsqueeze", value, torch.tensor([choice]))
    net.output(value, "y")
    return net.graph, x, value


def _joined(net, value, at):
    sizes = net.op("Shape", value)
    before = net.op("Slice", sizes, torch.tensor([0]), torch.tensor([at]))
    after = net.op("Slice", sizes, torch.tensor([at + 2]), torch.tensor([99]))
    return net.op("Concat", before, torch.tensor([-1]), after, axis=0)


def _target(net, value, at, pieces):
    sizes = net.op("Shape", value)
    before = net.op("Slice", sizes, torch.tensor([0]), torch.tensor([at]))
    after = net.op("Slice", sizes, torch.tensor([at + 1]), torch.tensor([99]))
    return net.op("Concat", before, torch.tensor(pieces), after, axis=0)


def _number(size) -> int:
    return size if isinstance(size, int) else size.value(SIZES)


@settings(max_examples=40, deadline=None)
@given(chains())
def test_atoms_describe_what_the_chain_does(chain) -> None:
    graph, x, _ = _built(chain)
    rewriter = Rewriter(graph, inferred(graph), adopted(graph))
    view = trace(rewriter, graph.outputs[0])
    start = view.base.value  # x, or where axes were cut in a way that has no atoms: 6 * 2 into 4 * 3
    data = torch.arange(math.prod((2, 3, 12)), dtype=torch.float32).reshape(2, 3, 12)
    result = run_graph(graph, {"x": data})["y"]
    if start is not x and start is not graph.outputs[0]:
        graph.outputs.append(start)
    base = data if start is x else run_graph(graph, {"x": data})[start.name]
    pieces = flat(view.base.axes)
    cut = base.reshape([_number(a.size) for a in pieces])
    order = [pieces.index(a) for a in flat(view.axes)]
    assert torch.equal(cut.permute(order).reshape([_number(size_of(axis)) for axis in view.axes]), result)


def test_two_spellings_of_a_head_split_end_in_the_same_atoms() -> None:
    net = Network("heads")
    x = net.input("x", "float32", ("B", "S", 12))
    plain = net.op("Transpose", net.op("Reshape", x, torch.tensor([0, 0, 4, 3])), perm=[0, 2, 1, 3])
    flipped = net.op("Transpose", x, perm=[1, 0, 2])
    rows = net.op("Reshape", flipped, torch.tensor([0, -1, 3]))
    turned = net.op("Transpose", rows, perm=[1, 0, 2])
    length = net.op("Slice", net.op("Shape", turned), torch.tensor([1]), torch.tensor([2]))
    target = net.op("Concat", torch.tensor([-1, 4]), length, torch.tensor([3]), axis=0)
    sideways = net.op("Reshape", turned, target)
    for value in (plain, sideways):
        net.output(value)
    rewriter = Rewriter(net.graph, net.inference, net.ledger())
    assert trace(rewriter, plain).axes[0] == (Atom((0,), Dim(("B",))),)
    assert flat(trace(rewriter, sideways).axes) == flat(trace(rewriter, plain).axes)


@pytest.mark.parametrize("pick", ["split", "slice", "gather"])
def test_parts_of_a_fused_projection_are_picked(pick: str) -> None:
    net = Network("parts")
    x = net.input("x", "float32", ("B", "S", 36))
    if pick == "split":
        parts = net.op("Split", x, torch.tensor([12, 12, 12]), outputs=3, axis=-1)
    elif pick == "slice":
        parts = [
            net.op("Slice", x, torch.tensor([12 * i]), torch.tensor([12 * i + 12]), torch.tensor([2]))
            for i in (0, 1, 2)
        ]
    else:
        turned = net.op("Transpose", net.op("Reshape", x, torch.tensor([0, 0, 3, 12])), perm=[2, 0, 1, 3])
        parts = [net.op("Gather", turned, torch.tensor(i), axis=0) for i in (0, 1, 2)]
    rewriter = Rewriter(net.graph, net.inference, net.ledger())
    for i, part in enumerate(parts):
        view = trace(rewriter, part, picks=True)
        assert view.base.value is x
        ((atom, index),) = view.picks.items()
        assert (atom.size, index) == (3, i)
        assert trace(rewriter, part).base.value is part


def test_factors_on_the_way_are_counted() -> None:
    net = Network("scaled")
    x = net.input("x", "float32", ("B", "S", 12))
    y = net.op("Div", net.op("Transpose", net.op("Mul", x, 0.5), perm=[0, 2, 1]), 4.0)
    rewriter = Rewriter(net.graph, net.inference, net.ledger())
    view = trace(rewriter, y, scale=True)
    assert view.base.value is x
    assert [step.factor for step in view.steps] == [0.125, 0.25, 0.25, 1.0]
    assert trace(rewriter, y).base.value is y


def test_an_expanded_axis_is_marked_as_repeated() -> None:
    net = Network("groups")
    x = net.input("x", "float32", ("B", 2, "S", 8))
    wide = net.op("Expand", net.op("Unsqueeze", x, torch.tensor([2])), torch.tensor([1, 1, 3, 1, 1]))
    heads = net.op("Reshape", wide, torch.tensor([0, 6, -1, 8]))
    view = trace(Rewriter(net.graph, net.inference, net.ledger()), heads)
    assert view.base.value is x
    assert [atom.repeated for atom in view.axes[1]] == [False, True]


def test_walking_forward_stops_where_somebody_else_reads() -> None:
    net = Network("forward")
    x = net.input("x", "float32", ("B", 4, "S", 3))
    swapped = net.op("Transpose", x, perm=[0, 2, 1, 3])
    joined = net.op("Reshape", swapped, torch.tensor([0, 0, 12]))
    net.output(joined)
    rewriter = Rewriter(net.graph, net.inference, net.ledger())
    b, n, s, d = trace(rewriter, x).axes
    way = follow(rewriter, x, (b, n, s, d), (b, s, n + d))
    assert way is not None
    assert way.value is joined
    assert [node.op_type for node in way.nodes] == ["Transpose", "Reshape"]
    net.op("Relu", swapped)
    assert follow(rewriter, x, (b, n, s, d), (b, s, n + d)) is None


def test_a_reshape_that_joins_too_much_is_reported() -> None:
    net = Network("rows")
    x = net.input("x", "float32", ("B", "S", 4, 3))
    rows = net.op("Reshape", x, torch.tensor([-1, 12]))
    net.output(rows)
    rewriter = Rewriter(net.graph, net.inference, net.ledger())
    b, s, n, d = trace(rewriter, x).axes
    way = follow(rewriter, x, (b, s, n, d), (b, s, n + d))
    assert way is not None
    assert way.value is x
    assert way.reshape is rows.producer()


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (12, 4, 3),
        (12, 5, None),
        (Dim(("B",), 12), 4, Dim(("B",), 3)),
        (Dim(("B", "S"), 4), Dim(("S",)), Dim(("B",), 4)),
        (Dim(("B",), 4), Dim(("B",)), 4),
        (Dim(("B",)), Dim(("S",)), None),
        (Dim(("B",), 1, 1), Dim(("B",), 1, 1), 1),
        (Dim(("B",), 1, 1), Dim(("B",)), None),
        (None, 2, None),
        (12, 0, None),
    ],
)
def test_quotients(a, b, expected) -> None:
    assert quotient(a, b) == expected
