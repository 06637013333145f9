"""Embedding look-ups and the norm after them become EmbedLayerNorm."""

import itertools

import pytest
import torch
from apply import Outcome, apply_to, equal

from qontext.fusion import embedding, folding, tidy
from qontext.ops.network import Network

G = torch.Generator().manual_seed(0)
E, V, P = 8, 30, 64  # more positions than inference tries
TABLES = {
    "word": torch.randn(V, E, generator=G),
    "position": torch.randn(P, E, generator=G),
    "type": torch.randn(2, E, generator=G),
}
FEEDS = {
    "input_ids": torch.randint(0, V, (2, 5), generator=G),
    "position_ids": torch.tensor([[0, 1, 2, 3, 4], [0, 0, 1, 2, 3]]),
    "token_type_ids": torch.tensor([[0, 0, 1, 1, 1], [0, 1, 0, 1, 0]]),
}
RULES = (folding.RULE, tidy.RULE, embedding.RULE)


class Builder:
    """Inputs, tables and look-ups of one network."""

    def __init__(self, length: str | int = "S"):
        self.net = Network("snippet", opset=20)
        self.ids = self.net.input("input_ids", "int64", ("B", length))
        self.buffer = self.net.parameter("position_ids_buffer", torch.arange(P).reshape(1, P))
        self.tables = {n: self.net.parameter(f"{n}_embeddings.weight", t) for n, t in TABLES.items()}

    def ids_input(self, name: str):
        return self.net.input(name, "int64", ("B", "S"))

    def look(self, table: str, ids):
        return self.net.op("Gather", self.tables[table], ids)

    def length(self):
        return self.net.op("Shape", self.ids, start=1, end=2)

    def positions(self, start: int = 0):
        """[1, S]: the first entries of a buffer, as BERT has them."""
        net = self.net
        begin, end = torch.tensor([start]), net.op("Add", self.length(), torch.tensor([start]))
        return net.op("Slice", self.buffer, begin, end, torch.tensor([1]))

    def finish(self, total, bias: bool = True) -> Network:
        parameters = [self.net.parameter("w", 1 + 0.1 * torch.randn(E, generator=G))]
        parameters += [self.net.parameter("b", torch.randn(E, generator=G))] if bias else []
        self.net.output(self.net.layer_norm(total, *parameters, epsilon=1e-12), "y")
        return self.net


def _apply(net: Network) -> Outcome:
    return apply_to(net.graph, FEEDS, RULES)


def _inputs(outcome: Outcome) -> list[str | None]:
    return [None if v is None else v.name for v in outcome.node("EmbedLayerNorm").inputs[:6]]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("left", [True, False])
def test_three_look_ups_in_any_order(order: tuple[int, ...], left: bool) -> None:
    b = Builder()
    looked = [
        b.look("word", b.ids),
        b.look("position", b.ids_input("position_ids")),
        b.look("type", b.ids_input("token_type_ids")),
    ]
    first, second, third = (looked[i] for i in order)
    add = b.net.op
    outcome = _apply(
        b.finish(add("Add", add("Add", first, second), third) if left else add("Add", third, add("Add", first, second)))
    )
    assert outcome.counts == {"EmbedLayerNorm": 1}
    assert _inputs(outcome) == [
        "input_ids", "word_embeddings.weight", "position_ids", "position_embeddings.weight", "token_type_ids",
        "type_embeddings.weight",
    ]  # fmt: skip
    assert equal(outcome)


@pytest.mark.parametrize("start", [0, 2])
def test_positions_that_are_counted(start: int) -> None:
    b = Builder()
    outcome = _apply(b.finish(b.net.op("Add", b.look("word", b.ids), b.look("position", b.positions(start)))))
    assert outcome.counts == {"EmbedLayerNorm": 1}
    assert _inputs(outcome)[2:4] == [None, "position_embeddings.weight"]
    assert outcome.node("EmbedLayerNorm").attributes["position_offset"].value == start
    assert equal(outcome)


def test_rows_of_positions_that_are_cut_out_of_the_table() -> None:
    b = Builder()
    rows = b.net.op("Slice", b.tables["position"], torch.tensor([0]), b.length(), torch.tensor([0]))
    outcome = _apply(b.finish(b.net.op("Add", b.net.op("Unsqueeze", rows, [0]), b.look("word", b.ids))))
    assert outcome.counts == {"EmbedLayerNorm": 1}
    assert equal(outcome)


def test_positions_that_folding_made_a_constant() -> None:
    b = Builder(length=5)
    constant = b.net.parameter("rows", TABLES["position"][:5].reshape(1, 5, E))
    outcome = _apply(b.finish(b.net.op("Add", b.look("word", b.ids), constant)))
    assert outcome.counts == {"EmbedLayerNorm": 1}
    assert list(outcome.node("EmbedLayerNorm").inputs[3].shape) == [5, E]
    assert equal(outcome)


@pytest.mark.parametrize("kind", ["expanded zeros", "gathered zeros", "row 1", "folded row"])
def test_token_types_that_are_always_the_same(kind: str) -> None:
    b = Builder()
    net = b.net
    if kind == "folded row":
        types = net.parameter("row", TABLES["type"][1].reshape(1, 1, E))
    elif kind == "gathered zeros":
        buffer = net.parameter("types_buffer", torch.zeros(1, P, dtype=torch.int64))
        wide = net.op("Expand", buffer, net.op("Concat", net.op("Shape", b.ids, start=0, end=1), [1], axis=0))
        types = b.look("type", net.op("GatherElements", wide, b.ids_input("position_ids"), axis=1))
    else:
        number = torch.tensor([[1 if kind == "row 1" else 0]])
        types = b.look("type", net.op("Expand", net.parameter("number", number), net.op("Shape", b.ids)))
    total = net.op("Add", net.op("Add", b.look("word", b.ids), types), b.look("position", b.positions()))
    outcome = _apply(b.finish(total))
    assert outcome.counts["EmbedLayerNorm"] == 1
    assert not {"Gather", "GatherElements", "Expand", "Add"} & outcome.counts.keys()
    assert _inputs(outcome)[4] is None
    assert equal(outcome)


def test_positions_that_are_computed_stay_computed() -> None:
    b = Builder()
    net = b.net
    real = net.op("Cast", net.op("Not", net.op("Equal", b.ids, torch.tensor(1))), to=7)
    places = net.op("Add", net.op("Mul", net.op("CumSum", real, torch.tensor(1)), real), torch.tensor(1))
    outcome = _apply(b.finish(net.op("Add", b.look("word", b.ids), b.look("position", places))))
    assert outcome.counts == {"Equal": 1, "Not": 1, "Cast": 1, "CumSum": 1, "Mul": 1, "Add": 1, "EmbedLayerNorm": 1}
    assert equal(outcome)


def test_the_sum_is_a_second_output_where_it_is_read() -> None:
    b = Builder()
    total = b.net.op("Add", b.look("word", b.ids), b.look("position", b.positions()))
    early = b.net.op("Relu", total)
    net = b.finish(total)
    net.output(early, "early")
    outcome = _apply(net)
    assert outcome.counts == {"EmbedLayerNorm": 1, "Relu": 1}
    assert outcome.ledger.fusions[-1].note == "with the sum"
    assert equal(outcome)


def test_a_norm_without_bias() -> None:
    b = Builder()
    outcome = _apply(b.finish(b.look("word", b.ids), bias=False))
    assert outcome.counts == {"EmbedLayerNorm": 1}
    assert equal(outcome)


def _no_look_up(b: Builder):
    return b.net.op("Add", b.look("word", b.ids), b.net.op("Relu", b.look("position", b.positions())))


def _four(b: Builder):
    more = [
        b.look(t, b.ids_input(n))
        for t, n in (("position", "position_ids"), ("type", "token_type_ids"), ("word", "again"))
    ]
    return b.net.op("Sum", b.look("word", b.ids), *more)


def _partial_read(b: Builder):
    part = b.net.op("Add", b.look("word", b.ids), b.look("position", b.positions()))
    b.net.output(b.net.op("Relu", part), "part")
    return b.net.op("Add", part, b.look("type", b.ids_input("token_type_ids")))


def _window(b: Builder):
    """Positions that only look counted for short sequences."""
    net = b.net
    places = net.op("Min", net.op("Range", 0, net.op("Squeeze", b.length()), 1), torch.tensor(12))
    return net.op("Add", b.look("word", b.ids), b.look("position", places))


REFUSED = {
    "an addend comes from Relu 'Relu', which is no embedding look-up": _no_look_up,
    "4 look-ups are added, EmbedLayerNorm takes at most three": _four,
    "a partial sum of the embeddings is read elsewhere": _partial_read,
    "two look-ups count along the positions": lambda b: b.net.op(
        "Sum", b.look("word", b.ids), *(b.look("position", b.positions()) for _ in range(2))
    ),
    "no look-up depends on the tokens": lambda b: b.look("position", b.positions()),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_sums_that_are_no_embedding_of_ours(reason: str) -> None:
    b = Builder()
    net = b.finish(REFUSED[reason](b))
    outcome = apply_to(net.graph, {**FEEDS, "again": FEEDS["input_ids"]}, RULES)
    assert "EmbedLayerNorm" not in outcome.counts
    assert any(reason in found for found in outcome.reasons("embed_layer_norm")), outcome.ledger.refusals
    assert equal(outcome)


def test_positions_with_a_limit_are_no_counted_positions() -> None:
    b = Builder()
    outcome = _apply(b.finish(_window(b)))
    assert _inputs(outcome)[2] is not None
    assert outcome.counts["Min"] == 1
    assert equal(outcome)


def test_a_norm_of_something_else_is_no_candidate() -> None:
    net = Network("snippet")
    x = net.input("x", "float32", ("B", "S", E))
    net.output(net.layer_norm(net.op("Add", x, x), net.parameter("w", torch.ones(E))), "y")
    outcome = apply_to(net.graph, {"x": torch.randn(2, 3, E)}, RULES)
    assert not outcome.reasons("embed_layer_norm")
