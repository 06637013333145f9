"""Transposes of the leading axes go where what stands between them can do without."""

import pytest
import torch
from apply import Outcome, apply_to, equal

from qontext.fusion import leading_axes
from qontext.ops.network import Network

G = torch.Generator().manual_seed(0)
E, N = 24, 4
SWAP = [1, 0, 2]


def _net():
    net = Network("snippet", opset=20)
    return net, net.input("x", "float32", ("B", "S", E))


def _weight(net, *shape: int):
    return net.parameter(f"weight_{len(net.graph.initializers)}", torch.randn(*shape, generator=G))


def _apply(net, **feeds: torch.Tensor) -> Outcome:
    feeds = {"x": torch.randn(2, 5, E, generator=G), **feeds}
    return apply_to(net.graph, feeds, (leading_axes.RULE,))


def test_self_attention_runs_with_the_batch_first() -> None:
    net, x = _net()
    mask = net.input("mask", "bool", ("B", "S"))
    qkv = net.linear(net.op("Transpose", x, perm=SWAP), _weight(net, 3 * E, E))
    y = net.qkv_to_context(qkv, mask=mask, num_heads=N, layout="S B (three N D)")
    net.output(net.op("Transpose", net.linear(y, _weight(net, E, E)), perm=SWAP), "y")
    outcome = _apply(net, mask=torch.rand(2, 5, generator=G) > 0.3)
    assert outcome.counts == {"Linear": 2, "QKVToContext": 1}
    assert outcome.node("QKVToContext").attributes["layout"].as_string() == "B S (three N D)"
    assert equal(outcome)


def test_cross_attention_reads_two_values() -> None:
    net, x = _net()
    memory = net.op("Transpose", net.input("memory", "float32", ("B", "L", E)), perm=SWAP)
    q = net.linear(net.op("Transpose", x, perm=SWAP), _weight(net, E, E))
    k, v = (net.linear(memory, _weight(net, E, E)) for _ in range(2))
    y = net.attention(q, k, v, num_heads=N, layout="S B (N D)")
    net.output(net.op("Transpose", y, perm=SWAP), "y")
    outcome = _apply(net, memory=torch.randn(2, 7, E, generator=G))
    assert outcome.counts == {"Linear": 3, "Attention": 1}
    assert outcome.node("Attention").attributes["layout"].as_string() == "B S (N D)"
    assert equal(outcome)


def test_additions_and_norms_between_them() -> None:
    net, x = _net()
    inside = net.op("Transpose", x, perm=SWAP)
    total = net.op("Add", net.op("Mul", inside, torch.randn(E, generator=G)), inside)
    net.output(net.op("Transpose", net.layer_norm(total), perm=SWAP), "y")
    outcome = _apply(net)
    assert outcome.counts == {"Mul": 1, "Add": 1, "LayerNorm": 1}
    assert equal(outcome)


@pytest.mark.parametrize(
    "make",
    [
        lambda net, x: net.op("CumSum", x, torch.tensor(0)),
        lambda net, x: net.op("Add", x, torch.randn(1, 1, E)),
        lambda net, x: net.output(net.linear(x, torch.randn(E, E)), "seen"),
    ],
    ids=["along the first axis", "three axes", "read elsewhere"],
)
def test_what_needs_its_axes_keeps_them(make) -> None:
    net, x = _net()
    inside = net.linear(net.op("Transpose", x, perm=SWAP), _weight(net, E, E))
    net.output(net.op("Transpose", net.gelu(make(net, inside)), perm=SWAP), "y")
    outcome = _apply(net)
    assert outcome.counts["Transpose"] == 2
    assert equal(outcome)


def test_one_transpose_alone_stays() -> None:
    net, x = _net()
    net.output(net.op("Transpose", net.linear(x, _weight(net, E, E)), perm=SWAP), "y")
    outcome = _apply(net)
    assert outcome.counts == {"Linear": 1, "Transpose": 1}
    assert not outcome.ledger.refusals
