"""From the softmax back to the product of query and key, and on to the product with the value."""

import math
from dataclasses import dataclass, field

import onnx_ir as ir

from .norms import over_last_axis as reduces_last_axis
from .rewriter import Rewriter
from .rule import Conditions
from .views import MOVERS, scale_of

_LONGEST = 24


@dataclass(frozen=True)
class Addend:
    """Something added to the scores, times `factor`; `rank` is the number of axes the scores have there."""

    value: ir.Value
    factor: float
    rank: int
    order: int


@dataclass(frozen=True)
class Choice:
    """A Where: scores stay where `condition` is `keep`, and become `fill` elsewhere."""

    condition: ir.Value
    keep: bool
    fill: float
    rank: int
    order: int


@dataclass
class Scores:
    """product: the MatMul of query and transposed key; scale and softcap as Attention has them.
    addends, choices: nearest to the softmax first; `order` says how they interleave."""

    product: ir.Node
    scale: float = 1.0
    softcap: float = 0.0
    addends: list[Addend] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    nodes: list[ir.Node] = field(default_factory=list)


@dataclass(frozen=True)
class Weighted:
    """product: the MatMul of probabilities and value, after `nodes` (a guard against NaN, casts, views).
    guards: masks whose rows of -inf alone the probabilities were set to zero for."""

    product: ir.Node
    nodes: tuple[ir.Node, ...]
    guards: tuple[ir.Value, ...] = ()


def over_last_axis(rewriter: Rewriter, node: ir.Node) -> bool:
    """True for a softmax over the last axis."""
    rank = rewriter.rank(node.outputs[0])
    axis = rewriter.attributes(node).get("axis", -1 if rewriter.inference.opset >= 13 else 1)
    return rank is not None and axis in (-1, rank - 1)


def weighted_values(seen: Conditions, rewriter: Rewriter, softmax: ir.Node) -> Weighted:
    """The product of probabilities and value that reads a softmax; a refusal when something else does."""
    value, nodes, guards = softmax.outputs[0], list[ir.Node](), list[ir.Value]()
    while len(nodes) < _LONGEST:
        readers = rewriter.consumers(value)
        guard = _nan_guard(rewriter, value, readers)
        if guard is not None:
            nodes += guard
            value = guard[-1].outputs[0]
            continue
        node = rewriter.only_consumer(value)
        row_guard = _row_guard(rewriter, value, node)
        if row_guard is not None:
            nodes += row_guard[0]
            guards.append(row_guard[1])
            value = row_guard[0][-1].outputs[0]
            continue
        if node is None:
            names = ", ".join(n.op_type for n in readers if n.op_type != "MatMul") or "the caller"
            if any(n.op_type == "MatMul" and n.domain == "" for n in readers):
                seen.depth = max(seen.depth, 1)
            raise seen.refusal(f"the probabilities are also read by {names}")
        if node.domain == "" and node.op_type == "MatMul" and node.inputs[0] is value:
            return Weighted(node, tuple(nodes), tuple(guards))
        if node.domain != "" or node.op_type not in MOVERS | {"Cast"} or node.inputs[0] is not value:
            raise seen.refusal(
                f"the probabilities go into {node.op_type} {node.name!r}, not into a product with values"
            )
        nodes.append(node)
        value = node.outputs[0]
    raise seen.refusal("the product with the values is too far away")


def _nan_guard(rewriter: Rewriter, value: ir.Value, readers: list[ir.Node]) -> list[ir.Node] | None:
    """[IsNaN, Where] of Where(IsNaN(p), 0, p)."""
    tests = [n for n in readers if n.op_type == "IsNaN" and n.domain == ""]
    choices = [n for n in readers if n.op_type == "Where" and n.domain == ""]
    if len(readers) != 2 or len(tests) != 1 or len(choices) != 1 or value.is_graph_output():
        return None
    condition, zero, other = choices[0].inputs
    same = condition is tests[0].outputs[0] and other is value and rewriter.scalar(zero) == 0.0
    return [tests[0], choices[0]] if same and rewriter.only_consumer(tests[0].outputs[0]) is choices[0] else None


def _row_guard(rewriter: Rewriter, value: ir.Value, node: ir.Node | None) -> tuple[list[ir.Node], ir.Value] | None:
    """([ReduceMax, Equal, Where], mask) of Where(max(mask) == -inf, 0, p)."""
    if node is None or node.op_type != "Where" or node.domain != "" or node.inputs[2] is not value:
        return None
    equal = rewriter.producer(node.inputs[0], "Equal")
    if equal is None or rewriter.scalar(node.inputs[1]) != 0.0:
        return None
    for i in (0, 1):
        most = rewriter.producer(equal.inputs[1 - i], "ReduceMax")
        if most is None or rewriter.scalar(equal.inputs[i]) != -math.inf or most.inputs[0] is None:
            continue
        if reduces_last_axis(rewriter, most):
            return [most, equal, node], most.inputs[0]
    return None


def scores_of(seen: Conditions, rewriter: Rewriter, softmax: ir.Node) -> Scores:
    """Everything between the product of query and key and the softmax."""
    value = softmax.inputs[0]
    nodes, addends, choices = list[ir.Node](), list[Addend](), list[Choice]()
    factor, softcap = 1.0, 0.0
    for order in range(_LONGEST):
        node = rewriter.producer(value)
        seen.holds(node is not None and node.domain == "", "the scores are no product of query and key", node)
        assert node is not None
        shape = rewriter.shape(node.outputs[0])
        rank = 0 if shape is None else len(shape)
        if node.op_type == "MatMul":
            scale = factor * (softcap or 1.0)
            return Scores(node, scale, softcap, addends, choices, nodes)
        only = rewriter.only_consumer(node.outputs[0])
        others = [n.op_type for n in rewriter.consumers(node.outputs[0])]
        what = ", ".join(others) if len(others) > 1 else "the caller"
        seen.holds(only is not None, f"the scores are also read elsewhere ({what})", node)
        nodes.append(node)
        scaled = scale_of(rewriter, node)
        if scaled is not None:
            factor, value = factor * scaled[0], scaled[1]
        elif node.op_type in ("Add", "Sub"):
            branch = _score_branch(seen, rewriter, node)
            addend = node.inputs[1 - branch]
            assert addend is not None
            sign = -1.0 if node.op_type == "Sub" else 1.0
            addends.append(Addend(addend, sign * factor, rank, order))
            value = node.inputs[branch]
        elif node.op_type == "Where":
            choice, value = _choice(seen, rewriter, node, factor, rank, order)
            choices.append(choice)
        elif node.op_type == "Tanh" and not softcap:
            inside = not addends and not choices
            seen.holds(factor > 0, f"the soft cap is {factor:g}", node)
            seen.holds(inside or all(a.factor == 1.0 for a in addends), "masks are scaled by the soft cap", node)
            softcap, factor = factor, 1.0
            value = node.inputs[0]
        elif node.op_type in MOVERS | {"Cast"}:
            value = node.inputs[0]
        else:
            raise seen.refusal(f"{node.op_type} stands between the product of query and key and the softmax", node)
        seen.holds(
            not softcap or not (addends or choices) or node.op_type not in ("Add", "Sub", "Where"),
            "something is added before the soft cap",
            node,
        )
    raise seen.refusal("the product of query and key is too far away")


def _score_branch(seen: Conditions, rewriter: Rewriter, node: ir.Node) -> int:
    """Which operand of an addition holds the scores."""
    whole = rewriter.shape(node.outputs[0])
    leads = [
        i for i in (0, 1) if rewriter.shape(_there(node, i)) == whole and _leads_to_product(rewriter, node.inputs[i])
    ]
    if node.op_type == "Sub":
        leads = [i for i in leads if i == 0]
    seen.holds(len(leads) < 2, "two products are added before the softmax", node)
    seen.holds(leads, "neither addend is a product of query and key", node)
    return leads[0]


def _there(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _leads_to_product(rewriter: Rewriter, value: ir.Value | None) -> bool:
    """True when scaling, masking and moving alone stand between a product of two computed values and this value."""
    todo, met = [(value, 0)], set[ir.Node]()
    while todo:
        here, far = todo.pop(0)
        node = rewriter.producer(here)
        if node is None or node.domain != "" or far > _LONGEST or node in met:
            continue
        met.add(node)
        if node.op_type == "MatMul":
            return True
        if node.op_type in MOVERS | {"Cast", "Tanh"}:
            todo.append((node.inputs[0], far + 1))
        elif node.op_type in ("Add", "Sub", "Mul", "Div", "Where"):
            todo += [(v, far + 1) for v in node.inputs if v is not None and rewriter.constant(v) is None]
    return False


def _choice(
    seen: Conditions, rewriter: Rewriter, node: ir.Node, factor: float, rank: int, order: int
) -> tuple[Choice, ir.Value]:
    condition = _there(node, 0)
    for keep, scores, other in ((True, 1, 2), (False, 2, 1)):
        fill = fill_of(rewriter, _there(node, other))
        if fill is not None and rewriter.shape(_there(node, scores)) == rewriter.shape(node.outputs[0]):
            return Choice(condition, keep, fill * factor, rank, order), _there(node, scores)
    raise seen.refusal("a Where before the softmax fills in something that is no single number", node)


def fill_of(rewriter: Rewriter, value: ir.Value) -> float | None:
    """The one number that a constant, or a constant expanded to any shape, holds."""
    node = rewriter.producer(value, "Expand", "ConstantOfShape")
    if node is not None and node.domain == "":
        if node.op_type == "ConstantOfShape":
            given = rewriter.attributes(node).get("value")
            return 0.0 if given is None else float(given.flatten()[0])
        return rewriter.scalar(node.inputs[0])
    tensor = rewriter.constant(value)
    if tensor is None or tensor.numel() == 0 or not bool((tensor == tensor.flatten()[0]).all()):
        return None
    return float(tensor.flatten()[0])
