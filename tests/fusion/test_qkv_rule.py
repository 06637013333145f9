"""Projections and attention become one projection and QKVToContext."""

import pytest
import torch
from apply import Outcome, apply_to, equal
from decomposed import heads, merged

from qontext.fusion import activation, attention, folding, mask_operand, products, qkv, tidy
from qontext.ops.network import Network

G = torch.Generator().manual_seed(0)
E, N = 24, 4
D = E // N
X = torch.randn(2, 5, E, generator=G)
FROM_PARTS = (
    folding.RULE, folding.SHAPES, tidy.RULE, products.RULE, activation.BIAS, attention.RULE, qkv.RULE,
)  # fmt: skip


def _net(axes=("B", "S", E)):
    net = Network("snippet", opset=20)
    return net, net.input("x", "float32", axes)


def _linear(net, x, name: str, out: int = E, width: int = E, bias: bool = True, **more):
    with net.scope(f"layer.attention.{name}"):
        weight = net.parameter(f"layer.attention.{name}.weight", torch.randn(out, width, generator=G))
        shift = net.parameter(f"layer.attention.{name}.bias", torch.randn(out, generator=G)) if bias else None
        return net.linear(x, weight, shift, **more)


def _three(net, x, **more):
    return [_linear(net, x, name, **more) for name in ("query", "key", "value")]


def _apply(net: Network, rules=(qkv.RULE,), **feeds) -> Outcome:
    return apply_to(net.graph, {"x": X, **feeds}, rules)


@pytest.mark.parametrize("layout", ["B S (N D)", "S B (N D)"])
def test_three_linear_layers_become_one(layout: str) -> None:
    net, x = _net()
    net.output(net.attention(*_three(net, x), num_heads=N, layout=layout, scale=0.3, kind="causal"), "y")
    outcome = _apply(net)
    assert outcome.counts == {"Linear": 1, "QKVToContext": 1}
    linear, attend = outcome.node("Linear"), outcome.node("QKVToContext")
    assert [v.name for v in linear.inputs[1:]] == ["layer.attention.qkv.weight", "layer.attention.qkv.bias"]
    assert list(linear.inputs[1].shape) == [3 * E, E]
    attributes = {name: a.value for name, a in attend.attributes.items()}
    assert attributes["layout"] == layout.replace("(N D)", "(three N D)")
    assert (attributes["num_heads"], attributes["kind"]) == (N, "causal")
    assert attributes["scale"] == pytest.approx(0.3)
    assert equal(outcome)


def test_a_missing_bias_is_zeros() -> None:
    net, x = _net()
    q, k, v = _linear(net, x, "query"), _linear(net, x, "key", bias=False), _linear(net, x, "value")
    net.output(net.attention(q, k, v, num_heads=N), "y")
    outcome = _apply(net)
    bias = outcome.node("Linear").inputs[2].const_value.numpy()
    assert not bias[E : 2 * E].any()
    assert bias[:E].any()
    assert equal(outcome)


def test_no_bias_at_all_stays_none() -> None:
    net, x = _net()
    net.output(net.attention(*_three(net, x, bias=False), num_heads=N), "y")
    outcome = _apply(net)
    assert len(outcome.node("Linear").inputs) == 2
    assert equal(outcome)


def test_the_ids_of_the_projections_move_to_the_one_projection() -> None:
    net, x = _net()
    net.output(net.attention(*_three(net, x), num_heads=N), "y")
    outcome = _apply(net)
    linear = next(f for f in outcome.ledger.fusions if f.after == "Linear")
    attend = next(f for f in outcome.ledger.fusions if f.after == "QKVToContext")
    assert (linear.ids, linear.before) == ((0, 1, 2), ("Linear",) * 3)
    assert (attend.ids, attend.before) == ((3,), ("Attention",))
    assert linear.note == "query, key and value side by side"
    assert linear.origin == "layer.attention"


def test_masks_and_biases_come_along() -> None:
    net, x = _net()
    mask = net.input("mask", "bool", ("B", "S"))
    bias = net.parameter("positions", torch.randn(1, N, 5, 5, generator=G))
    wide = net.op("Unsqueeze", mask, torch.tensor([1, 2]))
    net.output(net.attention(*_three(net, x), wide, bias, num_heads=N, empty_row="uniform"), "y")
    masks = torch.tensor([[1, 0, 1, 1, 0], [0] * 5]).bool()
    outcome = _apply(net, (qkv.RULE, mask_operand.RULE), mask=masks)
    assert outcome.counts == {"Linear": 1, "QKVToContext": 1}
    node = outcome.node("QKVToContext")
    assert node.inputs[2] is mask
    assert node.inputs[3] is bias
    assert node.attributes["empty_row"].as_string() == "uniform"
    assert equal(outcome)


def _cut(net, fused, how: str):
    """Query, key and value [B, N, S, D] out of one projection [B, S, 3E], as exporters cut it."""
    if how == "split":
        return [heads(net, part) for part in net.op("Split", fused, outputs=3, axis=-1, num_outputs=3)]
    if how == "slices":
        at = [(i * E, (i + 1) * E) for i in range(3)]
        return [heads(net, net.op("Slice", fused, [a], [b], torch.tensor([-1]))) for a, b in at]
    if how == "three N D":
        five = net.op("Transpose", net.op("Reshape", fused, torch.tensor([0, 0, 3, N, D])), perm=[2, 0, 3, 1, 4])
        return [net.op("Gather", five, torch.tensor(i), axis=0) for i in range(3)]
    five = net.op("Transpose", net.op("Reshape", fused, torch.tensor([0, 0, N, 3, D])), perm=[0, 2, 1, 3, 4])
    return [net.op("Gather", five, torch.tensor(i), axis=3) for i in range(3)]


@pytest.mark.parametrize("how", ["split", "slices", "three N D", "N three D"])
def test_one_projection_that_is_cut(how: str) -> None:
    net, x = _net()
    weight = net.parameter("c_attn.weight", torch.randn(E, 3 * E, generator=G))
    fused = net.op("Add", net.op("MatMul", x, weight), net.parameter("c_attn.bias", torch.randn(3 * E, generator=G)))
    q, k, v = _cut(net, fused, how)
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    context = net.op("MatMul", net.op("Softmax", net.op("Mul", scores, 0.2), axis=-1), v)
    net.output(merged(net, context, x), "y")
    outcome = _apply(net, FROM_PARTS)
    assert outcome.counts == {"Linear": 1, "QKVToContext": 1}
    order = "N three D" if how == "N three D" else "three N D"
    assert outcome.node("QKVToContext").attributes["layout"].as_string() == f"B S ({order})"
    assert outcome.node("QKVToContext").inputs[0].producer().op_type == "Linear"
    assert equal(outcome)


def test_layers_that_share_their_projections_share_the_merged_one() -> None:
    net, x = _net()
    weights = [net.parameter(f"shared.{n}.weight", torch.randn(E, E, generator=G) / E) for n in "qkv"]
    for _ in range(3):
        x = net.attention(*(net.linear(x, w) for w in weights), num_heads=N)
    net.output(x, "y")
    outcome = _apply(net)
    assert outcome.counts == {"Linear": 3, "QKVToContext": 3}
    assert list(outcome.graph.initializers) == ["shared.qkv.weight"]
    assert equal(outcome)


def _cross(net, x):
    other = net.op("Relu", x)
    q, k, v = _linear(net, x, "query"), _linear(net, other, "key"), _linear(net, other, "value")
    return net.attention(q, k, v, num_heads=N)


def _read_elsewhere(net, x):
    q, k, v = _three(net, x)
    net.output(net.op("Relu", k), "key")
    return net.attention(q, k, v, num_heads=N)


def _rotated(net, x):
    q, k, v = _three(net, x)
    return net.attention(net.op("Sin", q), k, v, num_heads=N)


def _grouped(net, x):
    small = [_linear(net, x, n, E // 2) for n in ("key", "value")]
    return net.attention(_linear(net, x, "query"), *small, num_heads=N, num_kv_heads=N // 2)


def _activated(net, x):
    q, k, v = _linear(net, x, "query", activation="relu"), _linear(net, x, "key"), _linear(net, x, "value")
    return net.attention(q, k, v, num_heads=N)


def _with_past(net, x):
    past = [net.parameter(n, torch.randn(2, N, 3, D, generator=G)) for n in ("past_key", "past_value")]
    return net.attention(*_three(net, x), past_key=past[0], past_value=past[1], num_heads=N)


def _with_scores(net, x):
    y, scores = net.attention(*_three(net, x), num_heads=N, outputs=("context", "scores"))
    net.output(scores, "scores")
    return y


def _unequal_sizes(net, x):
    q, k, v = _linear(net, x, "query"), _linear(net, x, "key"), _linear(net, x, "value", 2 * E)
    return net.attention(q, k, v, num_heads=N)


def _unknown_order(net, x):
    parts = net.op("Split", _linear(net, x, "fused", 3 * E), outputs=3, axis=-1, num_outputs=3)
    return net.attention(parts[1], parts[0], parts[2], num_heads=N)


REFUSED = {
    "(cross attention)": _cross,
    "the key is read elsewhere, by Relu": _read_elsewhere,
    "the query comes from Sin 'Sin', not from a linear layer": _rotated,
    "4 query heads share 2 key and value heads": _grouped,
    "the query projection has the activation relu": _activated,
    "its input 'past_key' has no place in QKVToContext": _with_past,
    "are wanted": _with_scores,
    "the projections of query and value have shapes [24, 24] and [48, 24]": _unequal_sizes,
    "are cut out of one value in no known order": _unknown_order,
}


@pytest.mark.parametrize("reason", REFUSED)
def test_attention_that_keeps_its_projections(reason: str) -> None:
    net, x = _net((2, "S", E))
    net.output(REFUSED[reason](net, x), "y")
    outcome = _apply(net)
    assert "QKVToContext" not in outcome.counts
    assert any(reason in found for found in outcome.reasons("qkv")), outcome.reasons("qkv")
    assert equal(outcome)


def test_a_context_that_is_wanted_with_heads_keeps_attention() -> None:
    net, x = _net()
    parts = _cut(net, _linear(net, x, "fused", 3 * E), "three N D")
    net.output(net.attention(*parts, layout="B N S D"), "y")
    outcome = _apply(net)
    assert outcome.counts["Attention"] == 1
    assert "its context is read as [B N S D]" in outcome.reasons("qkv")[0]
