"""Attention of models that were quantised before: QuantizeLinear and DequantizeLinear in front of both its products.

What has to be held in bytes are query, key, value and probabilities, symmetrically, as the operator holds them. Scores,
and views of what a pair holds already, may be held again (static quantisation by ONNX Runtime does that at every node):
such pairs go, and sums stay as exact as they are, so that results may lie two steps of the context from those of the
model; without such pairs one. A pair behind the product with the values goes behind the context.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from ..errors import NoFusion
from ..ops.linear.op import OP as LINEAR
from ..ops.quant_qkv_to_context.op import OP as QUANT_QKV_TO_CONTEXT
from . import attention
from .linear_parts import LinearParts, linear_parts, merged
from .quantised_pairs import Pair, pair_before, take_out, without
from .rewriter import Rewriter
from .rule import Conditions, Rule
from .scores import over_last_axis
from .views import MOVERS, scale_of, trace

_LONGEST = 24
_MOST = 127  # steps of the bytes of probabilities
_BETWEEN = MOVERS | {"Cast", "Add", "Sub", "Mul", "Div", "Where", "Tanh"}
_FUSED = {"B S (N D)": "B S (three N D)", "S B (N D)": "S B (three N D)"}


@dataclass(frozen=True)
class Found:
    """attention: what the rule `attention` finds without the pairs
    pairs:     all that go
    scales:    of query, key and value; step: of the probabilities
    behind:    the pair that the context is held by, None where it is not
    roundings: pairs on the scores
    linears:   the layers that compute query, key and value of one input and can be one; else empty
    """

    attention: attention.Found
    pairs: tuple[Pair, ...]
    scales: tuple[float, float, float]
    step: float
    behind: Pair | None
    roundings: int
    linears: tuple[LinearParts, ...]


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.candidate(over_last_axis(rewriter, node), "it is no softmax over the last axis")
    weights = _weights(seen, rewriter, node)
    product = weights.reader
    scores = _scores(seen, rewriter, node)
    places = (("query", scores.product, 0), ("key", scores.product, 1), ("value", product, 1))
    operands = [_operand(seen, rewriter, *place) for place in places]
    fits = weights.lowest == -128 or (weights.lowest == 0 and _MOST * weights.scale >= 1 - weights.scale / 2)
    seen.holds(
        fits,
        f"probabilities lie on 256 steps of {weights.scale:.4g} from {weights.lowest * weights.scale:.3g} on; those "
        f"of attention over bytes are 0 to {_MOST} steps",
        weights.into,
    )
    seen.holds(weights.scale <= 1, f"a step of the probabilities is {weights.scale:g}", weights.into)
    behind = _behind(seen, rewriter, product)
    pairs = (weights, *scores.pairs, *(p for some in operands for p in some.pairs), *behind)
    with without(pairs):
        try:
            found = attention.check(node, rewriter)
        except NoFusion as no:
            raise seen.refusal(f"without what holds bytes: {no.reason}") from no
        views = found.operands
        seen.holds(views.layout in _FUSED, f"its operands lie as {views.layout}; attention over bytes reads them fused")
        plain = views.reshape is None and not views.turn and views.num_heads == views.num_kv_heads
        seen.holds(plain, "its operands lie in no order that one projection has")
        three = (views.query, views.key, views.value)
        shapes = [rewriter.shape(value) for value in three]
        seen.holds(shapes[0] == shapes[1] == shapes[2], "queries and keys are not those of the same tokens")
        linears = _of_one_input(rewriter, three)
        first, second, third = (
            some.scale / _factor_before(rewriter, some, value) for some, value in zip(operands, three, strict=True)
        )
    return Found(
        found, pairs, (first, second, third), weights.scale, behind[0] if behind else None, len(scores.pairs), linears
    )


def _factor_before(rewriter: Rewriter, operand: "_Operand", value: ir.Value) -> float:
    """What `value` is multiplied by before it is held."""
    view = trace(rewriter, operand.read, scale=True)
    step = next(step for step in view.steps if step.value is value)
    return step.factor / operand.factor


@dataclass(frozen=True)
class _Scores:
    product: ir.Node
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class _Operand:
    """An operand of a product, `product.inputs[index]`; factor: what it is multiplied by after it was held."""

    product: ir.Node
    index: int
    pairs: tuple[Pair, ...]
    factor: float

    @property
    def scale(self) -> float:
        return self.pairs[0].scale

    @property
    def read(self) -> ir.Value:
        value = self.product.inputs[self.index]
        assert value is not None
        return value


def _weights(seen: Conditions, rewriter: Rewriter, softmax: ir.Node) -> Pair:
    """The pair that holds the probabilities, which the product with the values reads."""
    into = rewriter.only_consumer(softmax.outputs[0])
    held = into is not None and into.op_type == "QuantizeLinear" and into.domain == ""
    seen.candidate(held, "its probabilities are not held in bytes")
    assert into is not None
    back = rewriter.only_consumer(into.outputs[0])
    reader = None if back is None else rewriter.only_consumer(back.outputs[0])
    seen.candidate(
        reader is not None and reader.op_type == "MatMul" and reader.domain == "" and back is not None
        and reader.inputs[0] is back.outputs[0],
        "what holds its probabilities is read by no product",
    )  # fmt: skip
    seen.depth += 1
    assert reader is not None
    return seen.found(pair_before(seen, rewriter, reader, 0), "its probabilities are quantised alone", into)


def _scores(seen: Conditions, rewriter: Rewriter, softmax: ir.Node) -> _Scores:
    """The product of query and key, and the pairs on the way from it; masks keep theirs."""
    pairs: list[Pair] = []
    reader, index = softmax, 0
    for _ in range(_LONGEST):
        pair = pair_before(seen, rewriter, reader, index)
        if pair is not None:
            pairs.append(pair)
        value = reader.inputs[index] if pair is None else pair.source
        node = rewriter.producer(value)
        seen.holds(node is not None and node.domain == "", "the scores are no product of query and key", node)
        assert node is not None
        if node.op_type == "MatMul":
            return _Scores(node, tuple(pairs))
        seen.holds(node.op_type in _BETWEEN, f"{node.op_type} stands between the products", node)
        leads = [i for i, v in enumerate(node.inputs) if _leads_to_product(rewriter, v)]
        seen.holds(len(leads) == 1, f"{len(leads)} products meet before the softmax", node)
        reader, index = node, leads[0]
    raise seen.refusal("the product of query and key is too far away")


def _leads_to_product(rewriter: Rewriter, value: ir.Value | None) -> bool:
    """True for what a product of two computed values gives, pairs and all that may stand between the products aside."""
    for_bytes, todo, met = {"QuantizeLinear", "DequantizeLinear"}, [value], set[ir.Node]()
    while todo:
        node = rewriter.producer(todo.pop())
        if node is None or node.domain != "" or node in met or len(met) > _LONGEST * 4:
            continue
        met.add(node)
        if node.op_type == "MatMul":
            return True
        if node.op_type in for_bytes:
            todo.append(node.inputs[0])
        elif node.op_type in _BETWEEN:
            todo += [v for v in node.inputs if v is not None and rewriter.constant(v) is None]
    return False


def _operand(seen: Conditions, rewriter: Rewriter, name: str, product: ir.Node, at: int) -> _Operand:
    """What holds an operand of a product, and what held the same before it was moved."""
    pairs: list[Pair] = []
    reader, index, factor = product, at, 1.0
    for _ in range(_LONGEST):
        pair = pair_before(seen, rewriter, reader, index)
        if pair is not None and pairs and not pair.same(pairs[0]):
            break
        if pair is not None:
            pairs.append(pair)
        node = rewriter.producer(reader.inputs[index] if pair is None else pair.source)
        scaled = None if node is None or pairs else scale_of(rewriter, node)
        if node is None or node.domain != "" or (scaled is None and node.op_type not in MOVERS):
            break
        reader, index = node, 0
        if scaled is not None:
            factor *= scaled[0]
            index = next(i for i, v in enumerate(node.inputs) if v is scaled[1])
    seen.holds(pairs, f"the {name} is not held in bytes", product)
    seen.holds(
        pairs[0].lowest == -128,
        f"0 of the {name} is byte {-pairs[0].lowest} of 256; attention over bytes holds numbers evenly around 0",
        pairs[0].into,
    )
    return _Operand(product, at, tuple(pairs), factor)


def _behind(seen: Conditions, rewriter: Rewriter, product: ir.Node) -> list[Pair]:
    """The pairs that hold what the product with the values gives, and its views, all by the same scale."""
    pairs: list[Pair] = []
    value = product.outputs[0]
    for _ in range(_LONGEST):
        node = rewriter.only_consumer(value)
        if node is not None and node.op_type == "QuantizeLinear" and node.domain == "":
            back = rewriter.only_consumer(node.outputs[0])
            reader = None if back is None else rewriter.only_consumer(back.outputs[0])
            if back is None or reader is None or reader.op_type not in MOVERS:
                break  # the last one, which the next product reads
            pair = pair_before(seen, rewriter, reader, list(reader.inputs).index(back.outputs[0]))
            if pair is None or (pairs and not pair.same(pairs[0])):
                break
            pairs.append(pair)
            value = reader.outputs[0]
        elif node is not None and node.op_type in MOVERS and node.domain == "":
            value = node.outputs[0]
        else:
            break
    return pairs


def _of_one_input(rewriter: Rewriter, three: Sequence[ir.Value]) -> tuple[LinearParts, ...]:
    """The linear layers behind three values where one layer can take their place."""
    found = [linear_parts(rewriter, rewriter.producer(value)) for value in three]
    parts = tuple(p for p in found if p is not None)
    if len(parts) < 3 or any(p.x is not parts[0].x or p.activation != "none" for p in parts):
        return ()
    alike = len({tuple(p.weight.shape or ()) for p in parts}) == 1 and len({p.weight.dtype for p in parts}) == 1
    return parts if alike and all(rewriter.only_consumer(p.y) is not None for p in parts) else ()


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    inner, operands, at = found.attention, found.attention.operands, found.attention.weighted.product
    take_out(found.pairs)
    held = [n for pair in found.pairs for n in (pair.back, pair.into)]
    mask, bias = attention.masks_of(inner, rewriter, at)
    if found.linears:
        layers = [p.node for p in found.linears]
        name = f"{node.name}.qkv"
        given = [found.linears[0].x, *merged(rewriter, list(found.linears), name)]
        source = rewriter.insert(at, LINEAR, given, {}, origin=layers)
    else:
        layers = []
        given = [operands.query, operands.key, operands.value]
        source = rewriter.insert(at, "Concat", given, {"axis": -1}, origin=[node])
    scales = rewriter.weight(f"{node.name}.qkv_scale", torch.tensor(found.scales, dtype=torch.float32))
    made = rewriter.insert(
        at,
        QUANT_QKV_TO_CONTEXT,
        [source.outputs[0], None, mask, bias, None, None, None, scales],
        {
            "layout": _FUSED[operands.layout],
            "num_heads": operands.num_heads,
            "scale": inner.scale,
            "softcap": inner.scores.softcap,
            "empty_row": inner.empty_row,
            "dq_probs": found.step,
        },
        origin=[node, *inner.nodes],
    )
    context = made.outputs[0]
    if found.behind is not None and not _held(rewriter, operands.result):
        parameters = list(found.behind.into.inputs[1:])
        for half in ("QuantizeLinear", "DequantizeLinear"):
            context = rewriter.insert(at, half, [context, *parameters], origin=[node]).outputs[0]
    rewriter.redirect(operands.result, context)
    lost = f"; {found.roundings} roundings of the scores left out" if found.roundings else ""
    rewriter.absorb(RULE.name, [node, *held, *inner.nodes], made, f"scales of the model{lost}")
    if layers:
        rewriter.absorb(RULE.name, layers, source, "query, key and value side by side")


def _held(rewriter: Rewriter, value: ir.Value) -> bool:
    """True for what its only reader holds in bytes."""
    reader = rewriter.only_consumer(value)
    return reader is not None and reader.op_type == "QuantizeLinear" and reader.domain == ""


RULE = Rule(
    name="quantised_attention",
    doc="An attention whose query, key, value and probabilities are held in bytes by QuantizeLinear and "
    "DequantizeLinear becomes QuantQKVToContext with the scales of the model.",
    anchors=frozenset({"Softmax"}),
    check=check,
    rewrite=rewrite,
    why="before attention, which sees no product through what holds bytes",
)
