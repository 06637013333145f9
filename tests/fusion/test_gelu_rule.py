"""GELU in all orders of its factors, exact and with tanh, and what only looks like it."""

import math

import pytest
import torch
from apply import Outcome, apply_to, equal

from qontext.fusion import gelu
from qontext.ops.network import Network

X = 2 * torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
ROOT = math.sqrt(2)
TANH = math.sqrt(2 / math.pi)


def _apply(build) -> Outcome:
    net = Network("snippet", opset=20)
    x = net.input("x", "float32", ("B", 7))
    net.output(build(net, x), "y")
    return apply_to(net.graph, {"x": X}, [gelu.RULE])


def _phi(net, x, by=True, first=False):
    inside = net.op("Div", x, ROOT) if by else net.op("Mul", 1 / ROOT, x)
    erf = net.op("Erf", inside)
    return net.op("Add", 1.0, erf) if first else net.op("Add", erf, 1.0)


EXACT = {
    "(x * phi) * 0.5": lambda net, x: net.op("Mul", net.op("Mul", x, _phi(net, x)), 0.5),
    "(phi * x) * 0.5, x times 1/sqrt 2": lambda net, x: net.op("Mul", net.op("Mul", _phi(net, x, False), x), 0.5),
    "x * (0.5 * phi)": lambda net, x: net.op("Mul", x, net.op("Mul", 0.5, _phi(net, x, first=True))),
    "(0.5 * x) * phi": lambda net, x: net.op("Mul", net.op("Mul", 0.5, x), _phi(net, x)),
    "phi * (x / 2)": lambda net, x: net.op("Mul", _phi(net, x), net.op("Div", x, 2.0)),
    "(x * phi) / 2": lambda net, x: net.op("Div", net.op("Mul", x, _phi(net, x)), 2.0),
    "x * (0.5 * erf + 0.5)": lambda net, x: net.op(
        "Mul", x, net.op("Add", net.op("Mul", net.op("Erf", net.op("Div", x, ROOT)), 0.5), 0.5)
    ),
    "the operator": lambda net, x: net.op("Gelu", x),
}


def _cube(net, x, by_pow=True):
    return net.op("Pow", x, 3.0) if by_pow else net.op("Mul", net.op("Mul", x, x), x)


def _tanh(net, x, by_pow=True):
    inside = net.op("Add", x, net.op("Mul", 0.044715, _cube(net, x, by_pow)))
    return net.op("Add", 1.0, net.op("Tanh", net.op("Mul", TANH, inside)))


TANHS = {
    "9 operators": lambda net, x: net.op("Mul", net.op("Mul", x, 0.5), _tanh(net, x, False)),
    "with Pow": lambda net, x: net.op("Mul", net.op("Mul", 0.5, x), _tanh(net, x)),
    "0.5 last": lambda net, x: net.op("Mul", net.op("Mul", x, _tanh(net, x)), 0.5),
    "x taken out": lambda net, x: net.op(
        "Mul",
        net.op("Mul", 0.5, x),
        net.op(
            "Add",
            1.0,
            net.op(
                "Tanh",
                net.op(
                    "Mul",
                    net.op("Mul", x, TANH),
                    net.op("Add", 1.0, net.op("Mul", net.op("Mul", 0.044715, x), x)),
                ),
            ),
        ),
    ),
    "the operator": lambda net, x: net.op("Gelu", x, approximate="tanh"),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_gelu(name: str) -> None:
    outcome = _apply(EXACT[name])
    assert outcome.counts == {"Gelu": 1}
    assert outcome.node("Gelu").domain == "qontext"
    assert outcome.node("Gelu").attributes["approximate"].as_string() == "none"
    assert equal(outcome)


@pytest.mark.parametrize("name", TANHS)
def test_gelu_with_tanh(name: str) -> None:
    outcome = _apply(TANHS[name])
    assert outcome.counts == {"Gelu": 1}
    assert outcome.node("Gelu").attributes["approximate"].as_string() == "tanh"
    assert equal(outcome)


def test_the_build_log_shows_the_nine_operators() -> None:
    outcome = _apply(TANHS["9 operators"])
    assert len(outcome.log) == 1
    assert outcome.log[0].startswith("gelu: 9 operators (6 Mul, 2 Add, Tanh) -> Gelu(tanh)  at ")


def test_a_factor_behind_the_gelu_stays_behind_it() -> None:
    outcome = _apply(lambda net, x: net.op("Mul", EXACT["x * (0.5 * phi)"](net, x), 3.0))
    assert outcome.counts == {"Gelu": 1, "Mul": 1}
    assert equal(outcome)


def test_a_factor_before_the_gelu_stays_before_it() -> None:
    outcome = _apply(lambda net, x: EXACT["(x * phi) * 0.5"](net, net.op("Mul", x, 3.0)))
    assert outcome.counts == {"Gelu": 1, "Mul": 1}
    assert equal(outcome)


@pytest.mark.parametrize(
    ("reason", "build"),
    [
        (
            "differs from GELU(none) by at least",
            lambda net, x: net.op("Mul", x, net.op("Add", net.op("Erf", net.op("Div", x, 1.3)), 1.0)),
        ),
        (
            "differs from GELU(tanh) by at least",
            lambda net, x: net.op("Mul", x, net.op("Add", net.op("Tanh", net.op("Mul", x, 0.8)), 1.0)),
        ),
    ],
)
def test_what_computes_something_else_stays(reason: str, build) -> None:
    outcome = _apply(build)
    assert "Gelu" not in outcome.counts
    assert any(reason in found for found in outcome.reasons("gelu")), outcome.ledger.refusals
    assert equal(outcome)


def test_a_lone_tanh_is_no_candidate() -> None:
    outcome = _apply(lambda net, x: net.op("Tanh", x))
    assert outcome.counts == {"Tanh": 1}
    assert not outcome.ledger.refusals


def test_a_gate_of_another_value_stays() -> None:
    def build(net, x):
        other = net.op("Exp", x)
        return net.op("Mul", net.op("Mul", other, _phi(net, x)), 0.5)

    outcome = _apply(build)
    assert "Gelu" not in outcome.counts
    assert equal(outcome)
