"""How nodes are called in the records of fusions and in the build log."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from ..graph.attributes import values_of
from ..ops.declare import DOMAIN, Op

_PLAIN = frozenset({"approximate", "activation", "layout", "kind"})  # their values speak for themselves
_SELF_EVIDENT = frozenset({"epsilon", "num_heads"})  # shown as numbers of their own, or not worth a place in a line


def telling_attributes(node: ir.Node, ops: Mapping[str, Op]) -> str:
    """What distinguishes this node from others of its operator: "tanh", "12 heads, B S (three N D), scale=0.125".

    Attributes at their default say nothing and are left out.
    """
    op = ops.get(node.op_type)
    if op is None or node.domain != op.domain:
        return ""
    values, parts = values_of(node), []
    if values.get("num_heads"):
        heads = values["num_heads"]
        parts.append(f"{heads} head{'s' if heads != 1 else ''}")
    for attribute in op.attributes:
        value = values.get(attribute.name, attribute.default)
        if value == attribute.default or attribute.name in _SELF_EVIDENT:
            continue
        parts.append(
            value if isinstance(value, str) and attribute.name in _PLAIN else f"{attribute.name}={_short(value)}"
        )
    return ", ".join(parts)


def swallowed(before: Sequence[str]) -> str:
    """The operators of a record: "9 operators (4 Mul, 2 Add, ...)"."""
    kinds: dict[str, int] = {}
    for kind in before:
        kinds[kind] = kinds.get(kind, 0) + 1
    ordered = sorted(kinds.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{n} {kind}" if n > 1 else kind for kind, n in ordered)
    return f"{len(before)} operator{'s' if len(before) != 1 else ''} ({listed})"


def name_of(node: ir.Node) -> str:
    """A node in a sentence: "Softmax 'encoder.layer.0/Softmax_3'"."""
    return f"{'qontext ' if node.domain == DOMAIN else ''}{node.op_type} {node.name!r}"


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
