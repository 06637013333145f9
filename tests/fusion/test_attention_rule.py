"""Attention in parts, in the spellings of exporters, becomes Attention."""

import itertools
import math

import pytest
import torch
from apply import Outcome, apply_to, equal
from decomposed import SCALE, D, E, N, heads, merged, plain, sequence_first, single

from qontext.fusion import attention, folding, onnx_attention, tidy
from qontext.ops.network import Network

G = torch.Generator().manual_seed(0)
RULES = (folding.RULE, folding.SHAPES, tidy.RULE, attention.RULE, onnx_attention.RULE)
Q, K, V = (torch.randn(2, 5, E, generator=G) for _ in range(3))
MEMORY = [torch.randn(2, 7, E, generator=G) for _ in range(2)]


def _net(axes=("B", "S", E), keys=None, opset: int = 20):
    net = Network("snippet", opset=opset)
    return net, *(net.input(n, "float32", a) for n, a in zip("qkv", (axes, keys or axes, keys or axes), strict=True))


def _apply(net: Network, feeds=None, rules=RULES) -> Outcome:
    return apply_to(net.graph, feeds or {"q": Q, "k": K, "v": V}, rules)


def _attributes(outcome: Outcome) -> dict:
    return {name: a.value for name, a in outcome.node("Attention").attributes.items()}


@pytest.mark.parametrize(
    ("scale", "two_turns"), list(itertools.product(["q", "k", "both", "scores", "divided"], [True, False]))
)
def test_four_axes_with_the_scale_anywhere(scale: str, two_turns: bool) -> None:
    net, q, k, v = _net()
    net.output(plain(net, q, k, v, scale=scale, two_turns=two_turns), "y")
    outcome = _apply(net)
    assert outcome.counts == {"Attention": 1}
    assert [x.name for x in outcome.node("Attention").inputs] == ["q", "k", "v"]
    found = _attributes(outcome)
    assert (found["layout"], found["num_heads"]) == ("B S (N D)", N)
    assert found["scale"] == 0.0  # the default, 1 / sqrt(D)
    assert equal(outcome)


def test_one_head_on_three_axes() -> None:
    net, q, k, v = _net()
    net.output(single(net, q, k, v), "y")
    outcome = _apply(net)
    assert outcome.counts == {"Attention": 1}
    assert (_attributes(outcome)["layout"], _attributes(outcome)["num_heads"]) == ("B S (N D)", 1)
    assert equal(outcome)


def test_bmm_with_the_sequence_first() -> None:
    net, q, k, v = _net(("S", "B", E))
    net.output(sequence_first(net, q, k, v), "y")
    outcome = _apply(net)
    assert outcome.counts == {"Attention": 1}
    assert (_attributes(outcome)["layout"], _attributes(outcome)["num_heads"]) == ("S B (N D)", N)
    assert equal(outcome)


def test_cross_attention_with_other_lengths() -> None:
    net, q, k, v = _net(keys=("B", "T", E))
    net.output(plain(net, q, k, v), "y")
    outcome = _apply(net, {"q": Q, "k": MEMORY[0], "v": MEMORY[1]})
    assert outcome.counts == {"Attention": 1}
    assert equal(outcome)


def test_operands_that_have_heads_already() -> None:
    net, q, k, v = _net(("B", N, "S", D))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    net.output(net.op("MatMul", net.op("Softmax", scores, axis=-1), v), "y")
    feeds = {n: torch.randn(2, N, 5, D, generator=G) for n in "qkv"}
    outcome = _apply(net, feeds)
    assert outcome.counts == {"Attention": 1}
    assert _attributes(outcome)["layout"] == "B N S D"
    assert _attributes(outcome)["scale"] == pytest.approx(1.0)
    assert equal(outcome)


def test_a_key_that_comes_transposed_is_turned_back() -> None:
    net = Network("snippet", opset=20)
    q, k, v = (
        net.input(n, "float32", a) for n, a in zip("qkv", (("B", "S", D), ("B", D, "S"), ("B", "S", D)), strict=True)
    )
    net.output(net.op("MatMul", net.op("Softmax", net.op("MatMul", q, k), axis=-1), v), "y")
    feeds = {"q": torch.randn(2, 5, D), "k": torch.randn(2, D, 5), "v": torch.randn(2, 5, D)}
    outcome = _apply(net, feeds)
    assert outcome.counts == {"Transpose": 1, "Attention": 1}
    assert equal(outcome)


def test_heads_that_share_keys_and_values() -> None:
    net = Network("snippet", opset=20)
    q = net.input("q", "float32", ("B", "S", E))
    k, v = (net.input(n, "float32", ("B", "S", E // 2)) for n in "kv")
    shared = []
    for x in (k, v):
        grouped = net.op("Unsqueeze", heads(net, x), torch.tensor([2]))
        wide = net.op("Expand", grouped, torch.tensor([1, 1, 2, 1, 1]))
        like = net.op("Gather", net.op("Shape", x), torch.tensor([0, 1]))
        parts = [net.op("Gather", like, torch.tensor([0])), [N], net.op("Gather", like, torch.tensor([1])), [D]]
        shared.append(net.op("Reshape", wide, net.op("Concat", *parts, axis=0)))
    scores = net.op("MatMul", heads(net, q), net.op("Transpose", shared[0], perm=[0, 1, 3, 2]))
    net.output(merged(net, net.op("MatMul", net.op("Softmax", scores, axis=-1), shared[1]), q), "y")
    outcome = _apply(net, {"q": Q, "k": K[..., : E // 2], "v": V[..., : E // 2]})
    assert outcome.counts == {"Attention": 1}
    found = _attributes(outcome)
    assert (found["num_heads"], found["num_kv_heads"]) == (N, N // 2)
    assert equal(outcome)


def test_a_context_that_is_joined_to_rows_at_once() -> None:
    net, q, k, v = _net()
    scores = net.op("MatMul", heads(net, q), heads(net, k, key=True))
    context = net.op("MatMul", net.op("Softmax", scores, axis=-1), heads(net, v))
    rows = net.op("Reshape", net.op("Transpose", context, perm=[0, 2, 1, 3]), torch.tensor([-1, E]))
    net.output(net.op("Relu", rows), "y")
    outcome = _apply(net)
    assert outcome.counts == {"Attention": 1, "Reshape": 1, "Relu": 1}
    assert _attributes(outcome)["layout"] == "B S (N D)"
    assert equal(outcome)


def test_a_soft_cap() -> None:
    net, q, k, v = _net()
    net.output(plain(net, q, k, v, lambda n, s: n.op("Mul", n.op("Tanh", n.op("Div", s, 3.0)), 3.0)), "y")
    outcome = _apply(net)
    assert outcome.counts == {"Attention": 1}
    assert _attributes(outcome)["softcap"] == pytest.approx(3.0)
    assert equal(outcome)


def test_the_guard_against_nan_of_exporters() -> None:
    net, q, k, v = _net()
    mask = net.input("mask", "bool", ("B", 1, 1, "S"))
    scores = net.op("MatMul", heads(net, q), heads(net, k, key=True))
    scores = net.op("Add", scores, net.op("Where", mask, 0.0, -math.inf))
    probs = net.op("Softmax", scores, axis=-1)
    safe = net.op("Where", net.op("IsNaN", probs), 0.0, probs)
    net.output(merged(net, net.op("MatMul", safe, heads(net, v)), q), "y")
    masks = torch.tensor([[1, 1, 0, 1, 0], [0] * 5]).bool()[:, None, None]
    outcome = _apply(net, {"q": Q, "k": K, "v": V, "mask": masks})
    assert outcome.counts == {"Where": 1, "Attention": 1}
    assert _attributes(outcome)["empty_row"] == "zeros"
    assert equal(outcome)


def test_softmax_in_another_type() -> None:
    net = Network("snippet", opset=20)
    q, k, v = (net.input(n, "float16", ("B", "S", E)) for n in "qkv")
    scores = net.op("Cast", net.op("MatMul", heads(net, q), heads(net, k, key=True)), to=1)
    probs = net.op("Cast", net.op("Softmax", scores, axis=-1), to=10)
    net.output(merged(net, net.op("MatMul", probs, heads(net, v)), q), "y")
    outcome = _apply(net, {"q": Q.half(), "k": K.half(), "v": V.half()})
    assert outcome.counts == {"Attention": 1}
    assert outcome.errors["y"] < 2e-3


def test_opset_11_softmax_needs_its_axis() -> None:
    for axis, fused in ((3, True), (None, False)):
        net, q, k, v = _net(opset=11)
        scores = net.op("MatMul", heads(net, q), heads(net, k, key=True))
        probs = net.op("Softmax", scores, **({} if axis is None else {"axis": axis}))
        net.output(merged(net, net.op("MatMul", probs, heads(net, v)), q), "y")
        outcome = _apply(net)
        assert ("Attention" in outcome.counts) == fused
        assert equal(outcome)


def _probabilities_read(net, q, k, v):
    probs = net.op("Softmax", net.op("MatMul", heads(net, q), heads(net, k, key=True)), axis=-1)
    net.output(probs, "probs")
    return merged(net, net.op("MatMul", probs, heads(net, v)), q)


def _scores_read(net, q, k, v):
    return plain(net, q, k, v, lambda n, s: _also_read(n, s))


def _also_read(net, scores):
    shifted = net.op("Add", scores, net.op("ReduceMean", scores, torch.tensor([-1])))
    net.output(net.op("Relu", shifted), "scores")
    return shifted


REFUSED = {
    "the probabilities are also read by the caller": _probabilities_read,
    "the scores are also read elsewhere (Relu, Softmax)": _scores_read,
    "Exp stands between": lambda net, q, k, v: plain(net, q, k, v, lambda n, s: n.op("Exp", s)),
    "the scores are no product": lambda net, q, k, v: net.op("MatMul", net.op("Softmax", q, axis=-1), _square(net)),
    "the scores are scaled by -1": lambda net, q, k, v: plain(net, q, k, v, lambda n, s: n.op("Mul", s, -1 / SCALE)),
    "two products are added": lambda net, q, k, v: plain(
        net, q, k, v, lambda n, s: n.op("Add", s, n.op("MatMul", heads(n, k), heads(n, q, key=True)))
    ),
    "does not reach over all S keys": lambda net, q, k, v: plain(
        net, q, k, v, lambda n, s: n.op("Add", s, n.op("Unsqueeze", n.op("ReduceMean", q, [-1]), [1]))
    ),
    "fills in something that is no single number": lambda net, q, k, v: plain(
        net, q, k, v, lambda n, s: n.op("Where", n.op("Greater", s, 0.0), s, torch.arange(2.0).reshape(2, 1, 1, 1))
    ),
    "masked scores become -5, and masks start at -1000": lambda net, q, k, v: plain(
        net, q, k, v, lambda n, s: n.op("Where", n.op("Equal", n.op("Unsqueeze", k_row(n, k), [1, 2]), 0.0), -5.0, s)
    ),
    "something is added to the scores after a finite fill": lambda net, q, k, v: plain(
        net, q, k, v, lambda n, s: n.op("Add", _filled(n, k, s, -1e4), n.op("Unsqueeze", k_row(n, k), [1, 2]))
    ),
    "masked scores get different fills": lambda net, q, k, v: plain(
        net, q, k, v, lambda n, s: _filled(n, k, _filled(n, k, s, -1e4), -math.inf)
    ),
}


def k_row(net, k):
    """Something [B, S] computed from the key."""
    return net.op("Squeeze", net.op("ReduceMax", k, [-1]), [2])


def _filled(net, k, scores, fill):
    return net.op("Where", net.op("Equal", net.op("Unsqueeze", k_row(net, k), [1, 2]), 0.0), fill, scores)


def _square(net):
    return net.op("Reshape", net.parameter("square", torch.randn(E, E)), torch.tensor([1, E, E]))


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_attention_stays(reason: str) -> None:
    net, q, k, v = _net(("B", "S", E))
    if "two products" in reason or "fills in" in reason:
        net, q, k, v = _net((2, 5, E))
    net.output(REFUSED[reason](net, q, k, v), "y")
    outcome = _apply(net)
    assert "Attention" not in outcome.counts
    assert any(reason in found for found in outcome.reasons("attention")), outcome.reasons("attention")
    assert equal(outcome)


def test_refusals_say_how_near_the_miss_was() -> None:
    net, q, k, v = _net()
    net.output(REFUSED["Exp stands between"](net, q, k, v), "y")
    near = _apply(net).ledger.refusals[0]
    net, q, k, v = _net()
    net.output(REFUSED["masked scores become -5, and masks start at -1000"](net, q, k, v), "y")
    nearer = _apply(net).ledger.refusals[0]
    assert 0 < near.depth < nearer.depth


def test_a_softmax_of_classes_is_no_candidate() -> None:
    net, q, _, _ = _net()
    net.output(net.op("Softmax", q, axis=-1), "y")
    outcome = _apply(net)
    assert outcome.counts == {"Softmax": 1}
    assert not outcome.ledger.refusals


def test_heads_that_are_broadcast_over_the_batch_stay() -> None:
    net = Network("snippet", opset=20)
    q, k, v = (net.input(n, "float32", (b, N, "S", D)) for n, b in zip("qkv", ("B", 1, 1), strict=True))
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    net.output(net.op("MatMul", net.op("Softmax", scores, axis=-1), v), "y")
    feeds = {n: torch.randn(b, N, 5, D, generator=G) for n, b in zip("qkv", (2, 1, 1), strict=True)}
    outcome = _apply(net, feeds)
    assert "Attention" not in outcome.counts
    assert "in no way that Attention knows" in outcome.reasons("attention")[0]


def _onnx(net, q, k, v, *more, **attributes):
    return net.op("Attention", q, k, v, *more, q_num_heads=N, kv_num_heads=N, **attributes)


def test_the_onnx_operator_with_three_axes() -> None:
    net, q, k, v = _net(opset=23)
    mask = net.input("mask", "bool", ("S", "S"))
    net.output(_onnx(net, q, k, v, mask, is_causal=1, softcap=2.0), "y")
    masks = torch.rand(5, 5, generator=G) > 0.4
    masks[2] = False
    outcome = _apply(net, {"q": Q, "k": K, "v": V, "mask": masks})
    assert outcome.counts == {"Unsqueeze": 1, "Attention": 1}
    assert outcome.node("Attention").domain == "qontext"
    assert (_attributes(outcome)["kind"], _attributes(outcome)["softcap"]) == ("causal", 2.0)
    assert equal(outcome)


def test_the_onnx_operator_with_four_axes_reads_behind_the_head_split() -> None:
    net, q, k, v = _net(opset=23)
    context = net.op("Attention", *(heads(net, x) for x in (q, k, v)), scale=0.3)
    net.output(merged(net, context, q), "y")
    outcome = _apply(net)
    assert outcome.counts == {"Attention": 1}
    assert (_attributes(outcome)["layout"], _attributes(outcome)["num_heads"]) == ("B S (N D)", N)
    assert equal(outcome)


def test_the_onnx_operator_with_a_past_and_scores() -> None:
    net, q, k, v = _net(opset=23)
    past = [net.input(n, "float32", ("B", N, "P", D)) for n in ("past_k", "past_v")]
    y, present_k, present_v, scores = net.op(
        "Attention",
        q,
        k,
        v,
        None,
        *past,
        outputs=4,
        q_num_heads=N,
        kv_num_heads=N,
        qk_matmul_output_mode=3,
        is_causal=1,
    )
    for name, value in (("y", y), ("present_k", present_k), ("present_v", present_v), ("scores", scores)):
        net.output(value, name)
    feeds = {"q": Q, "k": K, "v": V, **{n: torch.randn(2, N, 3, D, generator=G) for n in ("past_k", "past_v")}}
    outcome = _apply(net, feeds)
    assert outcome.counts == {"Attention": 1}
    assert outcome.node("Attention").domain == "qontext"
    assert equal(outcome)


@pytest.mark.parametrize(
    ("reason", "attributes"),
    [
        ("its softmax is asked for in data type 11", {"softmax_precision": 11}),
        ("its scale is 0", {"scale": 0.0}),
    ],
)
def test_the_onnx_operator_that_asks_for_more_stays(reason: str, attributes) -> None:
    net, q, k, v = _net(opset=23)
    net.output(_onnx(net, q, k, v, **attributes), "y")
    outcome = _apply(net)
    assert outcome.node("Attention").domain == ""
    assert any(reason in found for found in outcome.reasons("onnx_attention")), outcome.ledger.refusals
