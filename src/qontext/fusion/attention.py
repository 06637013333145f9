"""An attention that an exporter took apart becomes Attention."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ..errors import NoFusion
from ..graph.dims import Shape, text
from .mask_facts import empty_row_of, understand
from .operands import Operands, resolve, scale_attribute
from .rewriter import Rewriter
from .rule import Conditions, Rule
from .scores import Addend, Choice, Scores, Weighted, over_last_axis, scores_of, weighted_values
from .views import size_of, trace


@dataclass(frozen=True)
class Placed:
    """A mask or bias with axes to insert so that it has four; `negated` turns a condition round."""

    value: ir.Value
    axes: tuple[int, ...]
    factor: float = 1.0
    negated: bool = False


@dataclass(frozen=True)
class Found:
    scores: Scores
    weighted: Weighted
    operands: Operands
    scale: float
    conditions: tuple[Placed, ...]
    mask: Placed | None
    biases: tuple[Placed, ...]
    empty_row: str
    nodes: tuple[ir.Node, ...]


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    if node.domain != "" or not over_last_axis(rewriter, node):
        raise seen.refusal("it is no softmax over the last axis")
    weighted = weighted_values(seen, rewriter, node)
    seen.depth += 1
    scores = scores_of(seen, rewriter, node)
    added = [a.value for a in scores.addends]
    seen.holds(
        all(g in added for g in weighted.guards), "rows are set to zero for a mask that is not added to the scores"
    )
    q, kt, v = scores.product.inputs[0], scores.product.inputs[1], weighted.product.inputs[1]
    assert q is not None
    assert kt is not None
    assert v is not None
    query, key = trace(rewriter, q, scale=True), trace(rewriter, kt, scale=True)
    value = trace(rewriter, v)
    ranks = {len(view.axes) for view in (query, key, value)}
    seen.holds(ranks in ({3}, {4}), f"query, key and value have {sorted(ranks)} axes, expected 3 or 4 for all")
    sizes = size_of(query.axes[-1]), size_of(key.axes[-2])
    seen.holds(sizes[0] == sizes[1], f"query and key have head sizes {sizes[0]} and {sizes[1]}", scores.product)
    shape = rewriter.shape(scores.product.outputs[0])
    keys = None if shape is None else shape[-1]
    problem = "query, key and value are laid out in no way that Attention knows"
    for operands in resolve(rewriter, query, key, value, weighted.product.outputs[0]):
        heads = operands.num_heads or (shape[1] if shape is not None and len(shape) == 4 else 1)
        try:
            placed = [_place(rewriter, a.value, a.rank, heads, keys, len(query.axes)) for a in scores.addends]
            conditions = [_place(rewriter, c.condition, c.rank, heads, keys, len(query.axes)) for c in scores.choices]
        except NoFusion as no:
            problem = no.reason
            continue
        scale = scores.scale * operands.factor
        seen.holds(scale > 0 and math.isfinite(scale), f"the scores are scaled by {scale:g}")
        scale = scale_attribute(scale, sizes[0])
        return _found(seen, rewriter, scores, weighted, operands, scale, placed, conditions)
    raise seen.refusal(problem)


def _place(
    rewriter: Rewriter, value: ir.Value, rank: int, heads: object, keys: object, operand_rank: int
) -> tuple[int, ...]:
    """Where axes of size 1 make four axes [B|1, N|1, S|1, Skv] of a mask. Raises NoFusion when they cannot."""
    shape = rewriter.shape(value)
    if shape is None or len(shape) > rank or not shape:
        raise NoFusion(f"the mask {value.name!r} has shape {text(shape)}")
    if shape[-1] != keys:
        raise NoFusion(f"the mask {value.name!r} has shape {text(shape)}, it does not reach over all {keys} keys")
    if rank == 4 and operand_rank == 3 and heads == 1 and len(shape) == 4 and shape[1] != 1:
        raise NoFusion(f"the mask {value.name!r} has shape {text(shape)}, query and key have no heads")
    if rank == 4:
        return tuple(range(4 - len(shape)))
    if rank != 3:
        raise NoFusion(f"the scores have {rank} axes where {value.name!r} is added")
    full: Shape = (1,) * (3 - len(shape)) + shape
    if full[0] == 1:
        return tuple(range(4 - len(shape)))
    if heads == 1:
        return (1,)
    raise NoFusion(f"the mask {value.name!r} has one matrix for each sequence and head together, {text(shape)}")


def _found(
    seen: Conditions,
    rewriter: Rewriter,
    scores: Scores,
    weighted: Weighted,
    operands: Operands,
    scale: float,
    placed: Sequence[tuple[int, ...]],
    placed_conditions: Sequence[tuple[int, ...]],
) -> Found:
    addends = [Placed(a.value, axes, a.factor) for a, axes in zip(scores.addends, placed, strict=True)]
    conditions = tuple(
        Placed(c.condition, axes, 1.0, not c.keep) for c, axes in zip(scores.choices, placed_conditions, strict=True)
    )
    empty_row, mask = "zeros", None
    if scores.choices:
        empty_row = _empty_row(seen, scores.choices, scores.addends, rewriter, weighted)
    else:
        mask = _the_mask(rewriter, addends)
    biases = tuple(a for a in addends if a is not mask)
    nodes = (*scores.nodes, *weighted.nodes, scores.product, weighted.product, *operands.swallowed)
    return Found(scores, weighted, operands, scale, conditions, mask, biases, empty_row, nodes)


def _empty_row(
    seen: Conditions, choices: Sequence[Choice], addends: Sequence[Addend], rewriter: Rewriter, weighted: Weighted
) -> str:
    """What wholly masked rows get from the fills of Where."""
    dtype = weighted.product.outputs[0].dtype
    try:
        kinds = {empty_row_of(c.fill, dtype, replaced=True) for c in choices}
    except NoFusion as no:
        raise seen.refusal(no.reason) from no
    seen.holds(len(kinds) == 1, f"masked scores get different fills, {', '.join(f'{c.fill:g}' for c in choices)}")
    kind = kinds.pop()
    late = kind == "uniform" and any(a.order < c.order for a in addends for c in choices)
    seen.holds(not late, "something is added to the scores after a finite fill")
    return kind


def _the_mask(rewriter: Rewriter, addends: Sequence[Placed]) -> Placed | None:
    """Which addend is the mask; the others are biases of positions."""
    for addend in addends:
        try:
            understand(rewriter, addend.value, addend.axes)
        except NoFusion:
            continue
        return addend
    others = [a for a in addends if not _for_all_sequences(rewriter, a)]
    return others[0] if others else None


def _for_all_sequences(rewriter: Rewriter, addend: Placed) -> bool:
    shape = rewriter.shape(_narrow(rewriter, addend).value)
    return shape is not None and (len(shape) < 4 or shape[0] == 1)


def _narrow(rewriter: Rewriter, placed: Placed) -> Placed:
    """The same before an Expand over sequences or heads, which the attention does by itself."""
    node = rewriter.producer(placed.value, "Expand")
    if node is None or node.domain != "" or node.inputs[0] is None:
        return placed
    narrow, wide = rewriter.shape(node.inputs[0]), rewriter.shape(placed.value)
    if narrow is None or wide is None or narrow[-1] != wide[-1] or len(narrow) != len(wide):
        return placed
    return Placed(node.inputs[0], placed.axes, placed.factor, placed.negated)


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    at = found.weighted.product
    operands, scores = found.operands, found.scores
    key = operands.key
    if operands.turn:
        order = [0, 2, 1] if rewriter.rank(key) == 3 else [0, 1, 3, 2]
        key = rewriter.insert(at, "Transpose", [key], {"perm": order}).outputs[0]
    mask, bias = masks_of(found, rewriter, at)
    attributes = {
        "scale": found.scale,
        "softcap": scores.softcap,
        "empty_row": found.empty_row,
    }
    inputs = [operands.query, key, operands.value, mask, bias]
    operands.put(rewriter, RULE.name, [node, *found.nodes], inputs, attributes, (), at)


def masks_of(found: Found, rewriter: Rewriter, at: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """Mask and bias with four axes each, computed in front of a node; None where there is none."""
    mask = _all_of(rewriter, at, found.conditions)
    if found.mask is not None:
        mask = _put(rewriter, at, found.mask)
    return mask, _sum(rewriter, at, [_narrow(rewriter, b) for b in found.biases])


def _put(rewriter: Rewriter, at: ir.Node, placed: Placed) -> ir.Value:
    """The value with four axes, its sign and factor applied."""
    value = rewriter.unsqueeze(at, placed.value, placed.axes)
    if placed.negated:
        value = rewriter.insert(at, "Not", [value]).outputs[0]
    if placed.factor != 1.0:
        assert value.dtype is not None
        number = rewriter.named_scalar(placed.factor, value.dtype)
        value = rewriter.insert(at, "Mul", [value, number]).outputs[0]
    return value


def _all_of(rewriter: Rewriter, at: ir.Node, conditions: Sequence[Placed]) -> ir.Value | None:
    values = [_put(rewriter, at, c) for c in conditions]
    result = values[0] if values else None
    for value in values[1:]:
        result = rewriter.insert(at, "And", [result, value]).outputs[0]
    return result


def _sum(rewriter: Rewriter, at: ir.Node, addends: Sequence[Placed]) -> ir.Value | None:
    values = [_put(rewriter, at, a) for a in addends]
    result = values[0] if values else None
    for value in values[1:]:
        result = rewriter.insert(at, "Add", [result, value]).outputs[0]
    return result


RULE = Rule(
    name="attention",
    doc="The product of query and key, scaling (on either, both or the scores), masks (added, or by Where), softmax "
    "and the product with the value become Attention, for [B, N, S, D], [B, S, D] and [B*N, S, D], self and cross.",
    anchors=frozenset({"Softmax"}),
    check=check,
    rewrite=rewrite,
    why="after products with constants are Linear, so that the products left are those of attention",
)
