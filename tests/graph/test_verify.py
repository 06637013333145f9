"""What a legal graph is: every rule refused, with the node named."""

import onnx_ir as ir
import pytest
import torch

from qontext.builder.compile import known_nodes, operators, updates_of
from qontext.errors import GraphError
from qontext.graph.verify import verify
from qontext.ops.declare import Op, Param
from qontext.ops.network import Network

APPEND = Op(
    "Append",
    "Writes new rows into a cache, in place.",
    (Param("cache", "P E"), Param("rows", "S E")),
    (Param("updated", "P E"),),
    lambda cache, rows: cache,
    updates={"updated": "cache"},
    domain="test",
)


def check(graph, plugins=()):
    ops = operators(plugins)
    verify(graph, known_nodes(ops), updates_of(ops), after="a test")


@pytest.fixture
def net():
    net = Network("test", plugins=[APPEND])
    net.x = net.input("x", "float32", ("P", 4))
    return net


def test_a_legal_graph_passes(net):
    net.output(net.op("Relu", net.x), "y")
    check(net.graph)


def test_order_and_cycles(net):
    a = net.op("Relu", net.x, name="first")
    b = net.op("Tanh", a, name="second")
    net.output(b, "y")
    a.producer().replace_input_with(0, b)
    with pytest.raises(GraphError, match=r"node 'first' \(Relu\) reads 'y', which nothing before it defines \(a cycle"):
        check(net.graph)


def test_doubled_names_and_unproduced_outputs(net):
    net.output(net.op("Relu", net.x), "y")
    net.output(net.op("Tanh", net.x), "z")
    net.graph.outputs[1].name = "y"
    net.graph.outputs.append(ir.Value(name="nowhere"))
    words = r"(?s)2 problems.*two values are called 'y'.*'nowhere' is produced by nothing"
    with pytest.raises(GraphError, match=words):
        check(net.graph)


def test_unknown_operators_are_named(net):
    net.output(net.op("Relu", net.x), "y")
    net.graph.append(ir.Node("far", "Strange", [net.x], name="odd"))
    with pytest.raises(GraphError, match=r"node 'odd' \(Strange\) uses the unknown operator far::Strange"):
        check(net.graph)


def test_a_donated_value_has_no_reader_after_its_update(net):
    rows = net.input("rows", "float32", ("S", 4))
    updated = APPEND(net.x, rows, name="append")
    net.output(updated, "y")
    check(net.graph, [APPEND])
    net.output(net.op("Relu", net.x, name="late"), "z")
    with pytest.raises(GraphError, match=r"node 'late' \(Relu\) reads 'x' after node 'append' \(Append\) has written"):
        check(net.graph, [APPEND])


def test_weights_are_never_written_over(net):
    weight = net.parameter("w", torch.zeros(3, 4))
    net.output(APPEND(weight, net.x, name="append"), "y")
    with pytest.raises(GraphError, match=r"node 'append' .* would write over the weight 'w'"):
        check(net.graph, [APPEND])
