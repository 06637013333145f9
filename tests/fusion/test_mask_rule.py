"""Masks become the boolean mask itself, whatever arithmetic led there; wholly masked rows keep their meaning."""

import math

import pytest
import torch
from apply import Outcome, apply_to, equal
from decomposed import E, N, heads, merged, plain

from qontext.fusion import attention, folding, masks, onnx_attention, tidy
from qontext.ops.network import Network

G = torch.Generator().manual_seed(0)
RULES = (folding.RULE, folding.SHAPES, tidy.RULE, attention.RULE, onnx_attention.RULE, masks.RULE)
S = 5
X = torch.randn(3, S, E, generator=G)
# A plain prefix, holes, and a wholly masked row.
MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]])
LOWEST = torch.finfo(torch.float32).min


def _apply(build, dtype: str = "int64", mask: torch.Tensor = MASK, axes=("B", "S"), opset: int = 20) -> Outcome:
    net = Network("snippet", opset=opset)
    x = net.input("x", "float32", ("B", "S", E))
    given = net.input("mask", dtype, axes)
    net.output(plain(net, x, x, x, lambda n, s: build(n, s, given)), "y")
    kind = {"int64": torch.int64, "bool": torch.bool, "float32": torch.float32, "int32": torch.int32}[dtype]
    return apply_to(net.graph, {"x": X, "mask": mask.to(kind)}, RULES)


def _wide(net, mask):
    return net.op("Unsqueeze", mask, torch.tensor([1, 2]))


def _added(fill: float):
    """(1 - mask) * fill, as old BERT exports have it."""

    def build(net, scores, mask):
        return net.op("Add", scores, net.op("Mul", net.op("Sub", 1.0, net.op("Cast", _wide(net, mask), to=1)), fill))

    return build


def _chosen(fill: float, keep_first: bool = True):
    """Where(mask, 0, fill) added."""

    def build(net, scores, mask):
        allowed = net.op("Cast", _wide(net, mask), to=9)
        if keep_first:
            return net.op("Add", net.op("Where", allowed, 0.0, fill), scores)
        return net.op("Add", scores, net.op("Where", net.op("Not", allowed), fill, 0.0))

    return build


def _filled(fill: float, zero_first: bool = True):
    """masked_fill(mask == 0, fill)."""

    def build(net, scores, mask):
        if zero_first:
            return net.op("Where", net.op("Equal", _wide(net, mask), torch.tensor(0)), fill, scores)
        return net.op("Where", net.op("Cast", _wide(net, mask), to=9), scores, fill)

    return build


def _gathered(net, scores, mask):
    """The padding mask of transformers 5, by GatherND with computed indices."""
    shape = net.op("Shape", mask)
    batch, length = (net.op("Range", 0, net.op("Gather", shape, torch.tensor(a)), 1) for a in (0, 1))
    rows = net.op("Unsqueeze", batch, torch.tensor([1, 2, 3]))
    columns = net.op("Unsqueeze", length, torch.tensor([0, 1, 2]))
    size = net.op("Shape", net.op("Max", rows, columns))
    pairs = [net.op("Unsqueeze", net.op("Expand", v, size), torch.tensor([-1])) for v in (rows, columns)]
    allowed = net.op("GatherND", net.op("Cast", mask, to=9), net.op("Concat", *pairs, axis=-1))
    always = net.op("GreaterOrEqual", net.op("Unsqueeze", length, torch.tensor([0, 1, 3])), 0)
    return net.op("Add", scores, net.op("Where", net.op("And", always, allowed), 0.0, LOWEST))


def _flattened(net, scores, mask):
    """The same of the TorchScript exporter, by Gather on the flat mask."""
    shape = net.op("Shape", mask)
    batch, length = (net.op("Gather", shape, torch.tensor(a)) for a in (0, 1))
    rows = net.op("Unsqueeze", net.op("Range", 0, batch, 1), torch.tensor([1, 2, 3]))
    columns = net.op("Unsqueeze", net.op("Range", 0, length, 1), torch.tensor([0, 1, 2]))
    index = net.op("Add", columns, net.op("Mul", rows, net.op("Unsqueeze", length, torch.tensor([0]))))
    flat = net.op("Reshape", net.op("Cast", mask, to=9), torch.tensor([-1]))
    return net.op("Add", scores, net.op("Where", net.op("Gather", flat, index, axis=0), 0.0, -math.inf))


def _expanded(net, scores, mask):
    """Expanded to [B, 1, S, S], inverted, masked_fill of its own values."""
    length = net.op("Shape", mask, start=1, end=2)
    one = torch.tensor([1])
    target = net.op("Concat", net.op("Shape", mask, start=0, end=1), one, length, length, axis=0)
    wide = net.op("Cast", net.op("Expand", _wide(net, mask), target), to=1)
    inverted = net.op("Sub", 1.0, wide)
    return net.op("Add", scores, net.op("Where", net.op("Cast", inverted, to=9), LOWEST, inverted))


PADDING = {
    "(1 - m) * -10000": (_added(-10000.0), "as_unmasked"),
    "(1 - m) * -1000": (_added(-1000.0), "as_unmasked"),
    "(1 - m) * lowest": (_added(LOWEST), "uniform"),
    "where(m, 0, -10000)": (_chosen(-10000.0), "as_unmasked"),
    "where(not m, -1e9, 0)": (_chosen(-1e9, False), "uniform"),
    "where(m, 0, -inf)": (_chosen(-math.inf), "zeros"),
    "masked_fill(m == 0, -1e3)": (_filled(-1e3), "uniform"),
    "masked_fill(m == 0, -inf)": (_filled(-math.inf), "zeros"),
    "where(m, scores, -1e4)": (_filled(-1e4, False), "uniform"),
    "gathered": (_gathered, "uniform"),
    "flattened": (_flattened, "zeros"),
    "expanded": (_expanded, "uniform"),
}


@pytest.mark.parametrize("name", PADDING)
def test_padding_masks(name: str) -> None:
    build, empty_row = PADDING[name]
    outcome = _apply(build)
    assert outcome.counts == {"Cast": 1, "Attention": 1}
    node = outcome.node("Attention")
    assert node.inputs[3].producer().inputs[0].name == "mask"
    assert outcome.graph[0].op_type == "Cast"
    assert node.attributes["empty_row"].as_string() == empty_row
    assert "mask is mask" in outcome.ledger.fusions[-1].note
    # torch gives NaN for rows of -inf, we give zeros; -1e4 added in float32 costs the original digits.
    if empty_row == "zeros":
        assert math.isnan(outcome.errors["y"])
        _assert_equal_where_defined(build)
    else:
        assert equal(outcome, 100 if empty_row == "as_unmasked" else 1)


def _assert_equal_where_defined(build) -> None:
    mask = MASK.clone()
    mask[2, 1] = 1
    assert equal(_apply(build, mask=mask))


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32"])
def test_masks_of_other_types_that_are_compared_with_zero(dtype: str) -> None:
    def build(net, scores, mask):
        zero = net.op("Equal", net.op("Cast", _wide(net, mask), to=1), 0.0)
        return net.op("Where", zero, -1e3, scores)

    outcome = _apply(build, dtype)
    assert outcome.counts == ({"Attention": 1} if dtype == "bool" else {"Cast": 1, "Attention": 1})
    assert equal(outcome)


def test_opset_11_spellings() -> None:
    def build(net, scores, mask):
        wide = net.op("Unsqueeze", net.op("Unsqueeze", mask, axes=[1]), axes=[2])
        return net.op("Add", scores, net.op("Mul", net.op("Sub", 1.0, net.op("Cast", wide, to=1)), -10000.0))

    net = Network("snippet", opset=11)
    x, mask = net.input("x", "float32", ("B", "S", E)), net.input("mask", "int64", ("B", "S"))
    scores = build(net, net.op("MatMul", heads(net, x), heads(net, x, key=True)), mask)
    context = net.op("MatMul", net.op("Softmax", scores, axis=3), heads(net, x))
    net.output(merged(net, context, x), "y")
    outcome = apply_to(net.graph, {"x": X, "mask": MASK}, RULES)
    assert outcome.counts == {"Cast": 1, "Attention": 1}
    assert equal(outcome, 100)


def _tril(net, like):
    length = net.op("Shape", like, start=1, end=2)
    ones = net.op("ConstantOfShape", net.op("Concat", length, length, axis=0), value=torch.ones(1, dtype=torch.int64))
    return net.op("Cast", net.op("Trilu", ones, upper=0), to=9)


def _by_positions(net, like):
    places = net.op("Range", 0, net.op("Squeeze", net.op("Shape", like, start=1, end=2)), 1)
    return net.op("LessOrEqual", places, net.op("Unsqueeze", places, torch.tensor([1])))


def _by_buffer(net, like):
    table = net.parameter("tril", torch.ones(64, 64, dtype=torch.bool).tril())
    length = net.op("Shape", like, start=1, end=2)
    rows = net.op("Slice", table, torch.tensor([0]), length, torch.tensor([0]))
    return net.op("Slice", rows, torch.tensor([0]), length, torch.tensor([1]))


@pytest.mark.parametrize("causal", [_tril, _by_positions, _by_buffer])
@pytest.mark.parametrize("padded", [True, False])
def test_causal_masks_are_recognised_by_value(causal, padded: bool) -> None:
    def build(net, scores, mask):
        allowed = causal(net, mask)
        if padded:
            allowed = net.op("And", allowed, net.op("Cast", _wide(net, mask), to=9))
        return net.op("Where", allowed, scores, -1e4)

    outcome = _apply(build)
    assert outcome.counts == ({"Cast": 1, "Attention": 1} if padded else {"Attention": 1})
    node = outcome.node("Attention")
    assert node.attributes["kind"].as_string() == "causal"
    assert len(node.inputs) == (4 if padded else 3)
    assert node.attributes["empty_row"].as_string() == ("uniform" if padded else "zeros")
    assert equal(outcome)


def test_a_mask_of_what_everybody_sees_goes() -> None:
    def build(net, scores, mask):
        length = net.op("Shape", mask, start=1, end=2)
        places = net.op("Range", 0, net.op("Squeeze", length), 1)
        return net.op("Add", scores, net.op("Where", net.op("GreaterOrEqual", places, 0), 0.0, LOWEST))

    outcome = _apply(build)
    assert outcome.counts == {"Attention": 1}
    assert len(outcome.node("Attention").inputs) == 3
    assert outcome.ledger.fusions[-1].note.endswith("masks nothing")
    assert equal(outcome)


def test_a_mask_where_true_means_padding_is_turned_round() -> None:
    outcome = _apply(
        lambda net, s, m: net.op("Add", s, net.op("Where", _wide(net, m), -math.inf, 0.0)),
        "bool",
        1 - MASK[:2].repeat(2, 1)[:3],
    )
    assert outcome.counts == {"Not": 1, "Attention": 1}
    assert "mask is not mask" in outcome.ledger.fusions[-1].note
    assert equal(outcome)


@pytest.mark.parametrize(("axes", "views"), [(("B", "S", "S"), 1), (("B", 1, "S", "S"), 0), (("S", "S"), 1)])
def test_masks_with_a_row_for_each_query(axes: tuple, views: int) -> None:
    mask = torch.rand(3, S, S, generator=G) > 0.4
    mask[1, 2] = False
    mask = {4: mask[:, None], 3: mask, 2: mask[1]}[len(axes)]

    def build(net, scores, given):
        four = given if len(axes) != 3 else net.op("Unsqueeze", given, torch.tensor([1]))
        return net.op("Where", net.op("Equal", net.op("Cast", four, to=6), torch.tensor(0).int()), -1e3, scores)

    outcome = _apply(build, "bool", mask, axes)
    assert outcome.counts == ({"Unsqueeze": 1, "Attention": 1} if views else {"Attention": 1})
    assert outcome.node("Attention").attributes["empty_row"].as_string() == "uniform"
    assert equal(outcome)


def test_a_bias_of_positions_stays_beside_the_mask() -> None:
    def build(net, scores, mask):
        table = net.parameter("table", torch.randn(1, N, S, S, generator=G))
        batch = net.op("Shape", mask, start=0, end=1)
        wide = net.op("Expand", table, net.op("Concat", batch, torch.tensor([1, 1, 1]), axis=0))
        return _added(-10000.0)(net, net.op("Add", scores, wide), mask)

    net = Network("snippet", opset=20)
    x, mask = net.input("x", "float32", ("B", S, E)), net.input("mask", "int64", ("B", S))
    net.output(plain(net, x, x, x, lambda n, s: build(n, s, mask)), "y")
    outcome = apply_to(net.graph, {"x": X, "mask": MASK}, RULES)
    assert outcome.counts == {"Cast": 1, "Attention": 1}
    assert [v.name for v in outcome.node("Attention").inputs[4:]] == ["table"]
    assert equal(outcome, 100)


def _window(width: int):
    """A sliding window, with padding."""

    def build(net, scores, mask):
        places = net.op("Range", 0, net.op("Squeeze", net.op("Shape", mask, start=1, end=2)), 1)
        far = net.op("Abs", net.op("Sub", places, net.op("Unsqueeze", places, torch.tensor([1]))))
        near = net.op("LessOrEqual", far, torch.tensor(width))
        allowed = net.op("Mul", net.op("Cast", near, to=1), net.op("Cast", _wide(net, mask), to=1))
        return net.op("Add", scores, net.op("Mul", net.op("Sub", 1.0, allowed), -10000.0))

    return build


def _two_inputs(net, scores, mask):
    other = net.input("other", "int64", ("B", "S"))
    both = net.op("Mul", mask, other)
    return _added(-10000.0)(net, scores, both)


def _graded(net, scores, mask):
    places = net.op("Range", 0, net.op("Squeeze", net.op("Shape", mask, start=1, end=2)), 1)
    fills = net.op("Sub", -10000.0, net.op("Cast", places, to=1))
    return net.op("Add", scores, net.op("Where", net.op("Cast", _wide(net, mask), to=9), 0.0, fills))


REFUSED = {
    "it adds different values to masked scores": ("int64", _graded),
    "depends on positions, but not causally": ("int64", _window(300)),
    "'mask' holds fractions, which it weighs": ("float32", _added(-10000.0)),
    "masked scores get -10, and masks start at -1000": ("int64", _added(-10.0)),
    "' together": ("int64", _two_inputs),
    "it computes NaN": ("int64", _added(-math.inf)),
    "which is too far to try out": ("int64", _window(100_000)),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_plain_mask_stays_an_addition(reason: str) -> None:
    dtype, build = REFUSED[reason]
    net = Network("snippet", opset=20)
    x, given = net.input("x", "float32", ("B", "S", E)), net.input("mask", dtype, ("B", "S"))
    net.output(plain(net, x, x, x, lambda n, s: build(n, s, given)), "y")
    mask = MASK.to(torch.float32 if dtype == "float32" else torch.int64)
    outcome = apply_to(net.graph, {"x": X, "mask": mask, "other": MASK.flip(0)}, RULES)
    assert outcome.counts["Attention"] == 1
    assert outcome.node("Attention").inputs[3 if len(outcome.node("Attention").inputs) == 4 else 4] is not None
    assert any(reason in found for found in outcome.reasons("mask")), outcome.reasons("mask")
    if "NaN" not in reason:
        assert equal(outcome, 100)


def test_a_mask_that_is_boolean_on_its_way_stays_boolean() -> None:
    def build(net, scores, mask):
        places = net.op("Range", 0, net.op("Squeeze", net.op("Shape", mask, start=1, end=2)), 1)
        far = net.op("Abs", net.op("Sub", places, net.op("Unsqueeze", places, torch.tensor([1]))))
        near = net.op("And", net.op("LessOrEqual", far, torch.tensor(1)), net.op("Cast", _wide(net, mask), to=9))
        return net.op("Add", scores, net.op("Where", near, 0.0, LOWEST))

    outcome = _apply(build)
    node = outcome.node("Attention")
    assert node.inputs[3].producer().op_type == "And"
    assert node.attributes["empty_row"].as_string() == "uniform"
    assert "Where" not in outcome.counts
    assert equal(outcome)


def test_a_given_additive_mask_is_left_as_it_is() -> None:
    outcome = _apply(lambda net, s, m: net.op("Add", s, m), "float32", torch.randn(3, 1, 1, S), ("B", 1, 1, "S"))
    assert outcome.counts == {"Attention": 1}
    assert "is added as it is given" in outcome.reasons("mask")[0]
    assert equal(outcome)


def test_ids_compared_with_the_padding_id_are_a_mask() -> None:
    def build(net, scores, ids):
        allowed = net.op("Not", net.op("Equal", ids, torch.tensor(1)))
        return net.op("Add", scores, net.op("Where", _wide(net, allowed), 0.0, -10000.0))

    outcome = _apply(build, mask=torch.tensor([[5, 6, 7, 1, 1], [9, 8, 7, 6, 5], [2, 1, 1, 1, 1]]))
    assert outcome.counts["Attention"] == 1
    assert outcome.node("Attention").inputs[3].dtype.name == "BOOL"
    assert outcome.counts.keys() == {"Equal", "Not", "Attention"}
    assert equal(outcome, 100)


def test_layers_share_one_cast() -> None:
    net = Network("snippet", opset=20)
    x, given = net.input("x", "float32", ("B", "S", E)), net.input("mask", "int64", ("B", "S"))
    for _ in range(3):
        x = plain(net, x, x, x, lambda n, s: _added(-10000.0)(n, s, given))
    net.output(x, "y")
    outcome = apply_to(net.graph, {"x": X, "mask": MASK}, RULES)
    assert outcome.counts == {"Cast": 1, "Attention": 3}
    assert equal(outcome, 100)


@pytest.mark.parametrize("count", [300, 3000])
def test_long_chains_end_in_a_mask_or_a_reason(count: int) -> None:
    def build(net, scores, mask):
        for _ in range(count):
            mask = net.op("Neg", mask)
        return _added(-10000.0)(net, scores, mask)

    outcome = _apply(build)
    if count < 400:
        assert outcome.counts == {"Cast": 1, "Attention": 1}
    else:
        assert outcome.counts["Neg"] == count
        assert outcome.reasons("mask") == ["more than 400 operators compute it"]
    assert equal(outcome, 100)


@pytest.mark.parametrize("fill", [-1e4, -1e9])
def test_numbers_that_are_scaled_and_added_are_no_mask(fill: float) -> None:
    """0 and 1 would pass for a mask and its opposite, and 2 is a number like any other."""

    def build(net, scores, numbers):
        return net.op("Add", scores, net.op("Mul", net.op("Cast", _wide(net, numbers), to=1), fill))

    outcome = _apply(build, mask=MASK * 2 - 1)
    assert outcome.node("Attention").inputs[3].producer() is not None
    assert "is used as numbers" in " ".join(outcome.reasons("mask"))
    assert equal(outcome)


@pytest.mark.parametrize("turned", [False, True])
def test_a_mask_less_one_is_a_mask(turned: bool) -> None:
    def build(net, scores, mask):
        kept = net.op("Cast", _wide(net, mask), to=1)
        less = net.op("Sub", kept, 1.0) if not turned else net.op("Add", kept, -1.0)
        return net.op("Add", scores, net.op("Mul", less, 1e4))

    outcome = _apply(build)
    assert outcome.counts.get("Attention") == 1
    assert "Mul" not in outcome.counts
    assert equal(outcome, 100)  # 1e4 is added to the scores of a wholly masked row and rounds them
