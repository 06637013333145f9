"""What stands between a mask and the attention that reads it, and what the operator does by itself."""

from dataclasses import dataclass

import onnx_ir as ir

from ..dtypes import from_onnx
from ..graph.dims import Shape
from ..ops.attention_common.mask_operand import TYPES
from ..ops.catalogue import BY_NAME as OPS
from .masks import ATTENTIONS
from .rewriter import Rewriter
from .rule import Conditions, Rule

_TYPES = frozenset(TYPES.split("|"))
_TURNED = {"by_type": "ignore", "attend": "ignore", "ignore": "attend"}


@dataclass(frozen=True)
class Found:
    """mask: what the operator can read instead, with this `mask_means`; `nodes`: what it then does by itself."""

    mask: ir.Value
    means: str
    nodes: tuple[ir.Node, ...]


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.candidate(rewriter.is_ours(node, *ATTENTIONS), "this is no fused attention")
    mask = rewriter.input(node, OPS[node.op_type].input_index("mask"))
    seen.candidate(mask is not None, "it has no mask")
    assert mask is not None
    means, nodes, alone = rewriter.attributes(node).get("mask_means", "by_type"), list[ir.Node](), True
    while True:
        before = rewriter.producer(mask)
        source = before.inputs[0] if before is not None and before.domain == "" and before.inputs else None
        if before is None or source is None:
            break
        alone = alone and rewriter.only_consumer(mask) is not None
        if before.op_type in ("Unsqueeze", "Reshape", "Expand"):
            if not _by_itself(rewriter.shape(source), rewriter.shape(mask)):
                break
        elif not alone:  # one conversion for all readers is less work than one for each
            break
        elif before.op_type == "Cast" and mask.dtype == ir.DataType.BOOL and _is_held(source):
            means = "attend" if means == "by_type" and _is_float(source) else means
        elif before.op_type == "Not":
            means = _TURNED[means]
        else:
            break
        mask = source
        nodes.append(before)
    seen.candidate(nodes, "its mask is as it was given")
    return Found(mask, means, tuple(nodes))


def _by_itself(narrow: Shape | None, wide: Shape | None) -> bool:
    """True for axes that the operator puts in: [B, Skv] and [B, S, Skv] to four, and axes of size 1 that it repeats."""
    if narrow is None or wide is None or len(wide) != 4:
        return False
    if len(narrow) == 2:
        return wide == (narrow[0], 1, 1, narrow[1])
    if len(narrow) == 3:
        return wide == (narrow[0], 1, *narrow[1:])
    return len(narrow) == 4 and narrow[3] == wide[3] and all(n in (w, 1) for n, w in zip(narrow, wide, strict=True))


def _is_held(value: ir.Value) -> bool:
    return value.dtype is not None and from_onnx(value.dtype).name in _TYPES


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    op = OPS[node.op_type]
    inputs = list(node.inputs)
    inputs[op.input_index("mask")] = found.mask
    attributes = {**rewriter.attributes(node), "mask_means": found.means}
    rewriter.replace(RULE.name, [node, *found.nodes], op, inputs, attributes, list(node.outputs), origin=[node])


RULE = Rule(
    name="mask_operand",
    doc="A mask is read as it was given: [B, Skv] and [B, S, Skv] without the axes put in, masks of any type without "
    "a cast to boolean or a Not of their own, unless several attentions share it.",
    anchors=frozenset(ATTENTIONS),
    check=check,
    rewrite=rewrite,
    why="after qkv and mask, when it is known which attentions share a mask",
)
