"""The ledger adds up, and says so when it does not."""

import pytest

from qontext.errors import GraphError
from qontext.graph.ledger import ids_of, set_ids
from qontext.ops.network import Network


@pytest.fixture
def net():
    net = Network("test")
    x = net.input("x", "float32", ("B", 4))
    with net.scope("block.0"):
        y = net.op("Relu", x)
    with net.scope("block.1"):
        y = net.op("Tanh", y)
    net.output(y, "y")
    return net


def test_every_node_is_counted_once(net):
    ledger = net.ledger()
    ledger.check(net.graph)
    first, second = list(net.graph)
    assert ledger.sources[0].origin == "block.0"
    set_ids(second, ())
    with pytest.raises(GraphError, match=r"node 1 \(Tanh .*\) is lost"):
        ledger.check(net.graph)
    set_ids(second, (0, 1))
    with pytest.raises(GraphError, match="node 0 is live in Relu"):
        ledger.check(net.graph)
    set_ids(second, (1,))
    ledger.remove(first, "test")
    with pytest.raises(GraphError, match="removed"):
        ledger.check(net.graph)


def test_fusing_moves_ids(net):
    ledger = net.ledger()
    first, second = list(net.graph)
    ledger.fuse("rule", [first], second, "why")
    set_ids(first, ())
    assert ids_of(second) == (0, 1)
    ledger.check(net.graph)
    assert ledger.fusions[0].before == ("Relu",)
    assert ledger.fusions[0].origin == "block.1"
