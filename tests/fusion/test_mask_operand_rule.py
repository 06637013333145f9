"""Masks are read as they were given: no axes put in, no cast, no Not of their own."""

import pytest
import torch
from apply import Outcome, apply_to, equal

from qontext.fusion import mask_operand
from qontext.ops.network import Network

G = torch.Generator().manual_seed(0)
B, S, E, N = 2, 5, 24, 4
HOLES = (torch.rand(B, S, S, generator=G) > 0.4) | torch.eye(S, dtype=torch.bool)
_BOOL = 9


def _net(dtype: str, shape: tuple[int | str, ...]):
    net = Network("snippet", opset=20)
    return net, net.input("x", "float32", ("B", "S", E)), net.input("mask", dtype, shape)


def _apply(net, x, mask, feed: torch.Tensor, layers: int = 1, **more) -> Outcome:
    for i in range(layers):
        net.output(net.attention(x, x, x, mask, num_heads=N, **more), f"y{i}")
    return apply_to(net.graph, {"x": torch.randn(B, S, E, generator=G), "mask": feed}, (mask_operand.RULE,))


def _turned(net, mask, how: str):
    """The mask as exporters hand it over."""
    if "cast" in how:
        mask = net.op("Cast", mask, to=_BOOL)
    if "not" in how:
        mask = net.op("Not", mask)
    return net.op("Unsqueeze", mask, torch.tensor([1]))


@pytest.mark.parametrize(
    ("dtype", "how", "means"),
    [
        ("bool", "", "by_type"),
        ("bool", "not", "ignore"),
        ("int64", "cast", "by_type"),
        ("uint8", "cast not", "ignore"),
        ("float32", "cast", "attend"),
        ("float32", "cast not", "ignore"),
        ("float32", "", "by_type"),
    ],
)
def test_a_mask_of_one_attention_needs_no_step(dtype: str, how: str, means: str) -> None:
    net, x, mask = _net(dtype, ("B", "S", "S"))
    outcome = _apply(net, x, _turned(net, mask, how), HOLES.to(getattr(torch, dtype)))
    assert outcome.counts == {"Attention": 1}
    node = outcome.node("Attention")
    assert node.inputs[3] is mask
    assert node.attributes["mask_means"].as_string() == means
    assert equal(outcome)


def test_several_attentions_share_one_cast() -> None:
    net, x, mask = _net("int64", ("B", "S", "S"))
    outcome = _apply(net, x, _turned(net, mask, "cast not"), HOLES.long(), layers=2)
    assert outcome.counts == {"Cast": 1, "Not": 1, "Attention": 2}
    assert equal(outcome)


def test_a_mask_that_the_caller_gets_keeps_its_cast() -> None:
    net, x, mask = _net("int64", ("B", "S", "S"))
    given = net.op("Cast", mask, to=_BOOL)
    net.output(given, "seen")
    outcome = _apply(net, x, given, HOLES.long())
    assert outcome.counts == {"Cast": 1, "Attention": 1}


@pytest.mark.parametrize(("axes", "shape"), [((1, 2), ("B", "S")), ((0, 1), ("S", "S")), ((2,), ("B", 1, "S"))])
def test_axes_that_the_operator_puts_in(axes: tuple[int, ...], shape: tuple[int | str, ...]) -> None:
    """[S, S] is none of its forms: it would be read as [B, S]."""
    net, x, mask = _net("bool", shape)
    wide = net.op("Unsqueeze", mask, torch.tensor(axes))
    feed = torch.ones([{"B": B, "S": S}.get(d, d) for d in shape], dtype=torch.bool).tril()
    outcome = _apply(net, x, wide, feed)
    assert outcome.counts == ({"Attention": 1} if shape[0] == "B" else {"Unsqueeze": 1, "Attention": 1})
    assert equal(outcome)


def test_an_expand_over_heads_and_queries_goes() -> None:
    net, x, mask = _net("bool", ("B", "S"))
    wide = net.op("Unsqueeze", mask, torch.tensor([1, 2]))
    batch, length = net.op("Shape", mask, end=1), net.op("Shape", mask, start=1)
    sizes = net.op("Concat", batch, [N], length, length, axis=0)
    outcome = _apply(net, x, net.op("Expand", wide, sizes), HOLES[:, 0])
    assert outcome.counts == {"Attention": 1}
    assert equal(outcome)
