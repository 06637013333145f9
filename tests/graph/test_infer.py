"""Inference by abstract runs, seen through the network builder."""

import pytest
import torch

from qontext.errors import ArgumentError, GraphError, ShapeError
from qontext.graph.dims import text
from qontext.ops.network import Network


@pytest.fixture
def net():
    return Network("test")


def test_shape_arithmetic_collapses(net):
    x = net.input("x", "float32", ("B", "S", 32))
    shape = net.op("Shape", x)
    lead = net.op("Slice", shape, torch.tensor([0]), torch.tensor([2]))
    target = net.op("Concat", lead, torch.tensor([4, 8]), axis=0)
    heads = net.op("Transpose", net.op("Reshape", x, target), perm=[0, 2, 1, 3])
    assert text(net.shape(heads)) == "[B, 4, S, 8]"
    assert [str(d) for d in net.inference.values(target) or []] == ["B", "S", "4", "8"]
    assert text(net.shape(net.op("Reshape", heads, torch.tensor([-1, 8])))) == "[4*B*S, 8]"


def test_sums_of_sizes(net):
    past = net.input("past", "float32", ("B", "P", 8))
    new = net.input("new", "float32", ("B", 1, 8))
    assert text(net.shape(net.op("Concat", past, new, axis=1))) == "[B, P+1, 8]"


def test_small_tables_are_not_clamped_by_the_stand_in_sizes(net):
    ids = net.input("ids", "int64", ("B", "S"))
    size = net.op("Gather", net.op("Shape", ids), torch.tensor([1]), axis=0)
    row = net.op("Slice", torch.arange(64)[None], torch.tensor([0]), size, torch.tensor([1]))
    assert text(net.shape(row)) == "[1, S]"


def test_unknown_sizes_get_symbols_of_their_own(net):
    mask = net.input("mask", "int64", ("B", "S"))
    index, offsets, longest = net.pack_index(mask, outputs=("token_index", "cu_seqlens", "max_seqlen"))
    tokens = net.shape(index)[0]
    assert text(net.shape(offsets)) == "[B+1]"
    assert net.shape(longest) == ()
    x = net.input("x", "float32", ("B", "S", 16))
    assert net.shape(net.pack_tokens(x, index)) == (tokens, 16)


def test_contradictions_name_the_node_and_both_shapes(net):
    x = net.input("x", "float32", ("B", 5, 32))
    with pytest.raises(GraphError, match=r"MatMul.*x\[B, 5, 32\].*\[33, 8\]"):
        net.op("MatMul", x, torch.zeros(33, 8))
    with pytest.raises(ShapeError, match="weight"):
        net.linear(x, net.parameter("w", torch.zeros(8, 33)))
    assert net.graph.num_nodes() == 0


def test_values_of_another_network_are_refused(net):
    other = Network("other").input("x", "float32", ("B",))
    with pytest.raises(ArgumentError, match="no value of this network"):
        net.op("Relu", other)


def test_equal_constants_are_shared_and_names_are_unique(net):
    x = net.input("x", "float32", ("B",))
    a, b = net.op("Add", x, 2.0), net.op("Add", x, 2.0)
    assert a.producer().inputs[1] is b.producer().inputs[1]
    assert a.name != b.name
    with pytest.raises(ArgumentError, match="taken"):
        net.input("x", "float32", ("B",))


def test_a_network_without_output_is_refused(net):
    net.input("x", "float32", ("B",))
    with pytest.raises(GraphError, match="no output"):
        net.model()
