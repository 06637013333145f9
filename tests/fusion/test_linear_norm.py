"""A linear layer and the norm behind it, joined for programs of a GPU."""

import pytest
import torch
from apply import apply_to, equal

from qontext.fusion import linear_norm, skip_norm
from qontext.fusion.catalogue import RULES
from qontext.ops.network import Network

G = torch.Generator().manual_seed(0)
E, K = 8, 16
X, SKIP = torch.randn(2, 3, K, generator=G), torch.randn(2, 3, E, generator=G) + 0.3
WEIGHT, BIAS, SCALE, SHIFT = (torch.randn(*s, generator=G) for s in ((E, K), (E,), (E,), (E,)))
JOIN = (skip_norm.RULE, linear_norm.RULE)


def build(activation="none", bias=True, swapped=False, also=None):
    net = Network("snippet", opset=20)
    x, skip = net.input("x", "float32", ("B", "S", K)), net.input("skip", "float32", ("B", "S", E))
    weights = [net.parameter("weight", WEIGHT), *([net.parameter("bias", BIAS)] if bias else [])]
    h = net.linear(x, *weights, activation=activation)
    total = net.op("Add", skip, h) if swapped else net.op("Add", h, skip)
    y = net.layer_norm(total, net.parameter("scale", SCALE), net.parameter("shift", SHIFT), epsilon=1e-5)
    net.output(y, "y")
    if also is not None:
        net.output({"sum": total, "product": h}[also], "other")
    return net


def outcome(net, rules=JOIN):
    return apply_to(net.graph, {"x": X, "skip": SKIP}, rules)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("swapped", [True, False])
@pytest.mark.parametrize("also", [None, "sum"])
def test_it_fires(bias, swapped, also):
    found = outcome(build(bias=bias, swapped=swapped, also=also))
    assert [n.op_type for n in found.graph] == ["LinearSkipLayerNorm"]
    equal(found)


def test_it_refuses_an_activation_in_between():
    found = outcome(build(activation="relu"))
    assert [n.op_type for n in found.graph] == ["Linear", "SkipLayerNorm"]
    assert "ends in relu" in found.reasons("linear_skip_layer_norm")[0]
    equal(found)


def test_it_refuses_a_product_that_is_read_elsewhere():
    found = outcome(build(also="product"))
    assert [n.op_type for n in found.graph] == ["Linear", "SkipLayerNorm"]
    assert "is read elsewhere too" in found.reasons("linear_skip_layer_norm")[0]
    equal(found)


def test_other_devices_keep_linear_layers_and_norms_apart():
    assert linear_norm.RULE not in RULES
    assert [n.op_type for n in outcome(build(), RULES).graph] == ["Linear", "SkipLayerNorm"]
