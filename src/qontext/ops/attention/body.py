"""Attention as an ONNX function body."""

from ...graph.dims import AnyDim
from ..attention_common.body import FLOAT, INT64, BodyCall, Side, attention, expressible, packed_side, padded_side
from ..attention_common.layouts import is_packed
from ..attention_common.problem import rule_of
from ..attention_common.statements import Statements
from ..call import Call
from .rules import NAMES, Part, parts_of


def body(call: Call) -> str | None:
    """The statements for this call; None when a head count or size is unknown, and for what packed calls cannot say."""
    attributes, layout = call.attributes, call.attributes["layout"]
    packed = is_packed(layout)
    if any(x is None or x.shape is None for x in call.inputs[:3]):
        return None
    parts = parts_of(call.inputs, attributes)
    if not all(isinstance(n, int) for part in parts for n in (part.heads, part.size)):
        return None
    if not expressible(call.input(3), call.input(4), packed) or (packed and any(call.wants(i) for i in (1, 2, 3))):
        return None
    s = Statements()
    query, key, value = (_heads(s, name, layout, part) for name, part in zip(NAMES, parts, strict=False))
    if call.input(5) is not None:
        key, value = s.add("Concat", "past_key", key, axis=2), s.add("Concat", "past_value", value, axis=2)
    for index, name, x in ((1, "present_key", key), (2, "present_value", value)):
        if call.wants(index):
            s.add("Identity", x, to=name)
    operand = call.inputs[0]
    assert operand is not None
    if operand.dtype != "float32":
        query, key, value = (s.add("Cast", x, to_=FLOAT) for x in (query, key, value))
    queries, keys = _sides(s, call, query, key)
    heads, key_heads, size = _number(parts[0].heads), _number(parts[1].heads), _number(parts[0].size)
    variant = BodyCall(
        rule=rule_of(attributes, size),
        groups=heads // key_heads,
        kv_heads=key_heads,
        mask=call.input(3),
        mask_means=attributes["mask_means"],
        bias=call.input(4),
        lengths="key_lengths" if call.input(7) else "",
        prefix="prefix_lengths" if call.input(12) else "",
        offset=_offset(s, call, query, queries),
    )
    steps = attention(s, variant, query, key, value, queries, keys)
    onnx = int(operand.type.onnx)
    if call.wants(3):
        s.add("Cast", steps[attributes["scores_mode"]], to="scores", to_=onnx)
    _join_heads(s, s.add("Cast", steps["context"], to_=onnx), layout, heads * _number(parts[2].size))
    return s.text()


def _heads(s: Statements, name: str, layout: str, part: Part) -> str:
    """An operand as `[B, N, S, D]`; a packed one becomes one sequence."""
    if layout == "B N S D":
        return name
    x = name
    if "(" in layout:
        x = s.unsqueeze(name, 0) if is_packed(layout) else name
        x = s.reshape(x, [0, 0, _number(part.heads), _number(part.size)])
    return s.add("Transpose", x, perm=[1, 2, 0, 3] if layout.startswith("S B") else [0, 2, 1, 3])


def _join_heads(s: Statements, context: str, layout: str, width: int) -> None:
    if layout == "B N S D":
        s.add("Identity", context, to="context")
    elif layout == "B S N D":
        s.add("Transpose", context, to="context", perm=[0, 2, 1, 3])
    else:
        rows = s.add("Transpose", context, perm=[2, 0, 1, 3] if layout.startswith("S B") else [0, 2, 1, 3])
        s.reshape(rows, [-1, width] if is_packed(layout) else [0, 0, width], to="context")


def _sides(s: Statements, call: Call, query: str, key: str) -> tuple[Side, Side]:
    if not is_packed(call.attributes["layout"]):
        return padded_side(s, query), padded_side(s, key)
    queries = packed_side(s, query, "cu_seqlens_q")
    return queries, packed_side(s, key, "cu_seqlens_kv") if call.input(9) else queries


def _offset(s: Statements, call: Call, query: str, queries: Side) -> str:
    """Where the first query stands among the keys, "" for 0."""
    if call.input(5) is not None:
        return s.add("Shape", "past_key", start=2, end=3)
    if call.input(7) is not None:
        lengths = s.unsqueeze(s.add("Cast", "key_lengths", to_=INT64), 1, 2, 3)
        return s.add("Sub", lengths, s.add("Shape", query, start=2, end=3))
    if call.input(9) is not None:
        longer = s.add("Sub", _lengths(s, "cu_seqlens_kv"), _lengths(s, "cu_seqlens_q"))
        return s.unsqueeze(s.add("Gather", longer, queries.segment), 1)
    return ""


def _lengths(s: Statements, cu_seqlens: str) -> str:
    bounds = s.add("Cast", cu_seqlens, to_=INT64)
    ends = s.add("Slice", bounds, s.ints([1]), s.ints([2**31 - 1]))
    return s.add("Sub", ends, s.add("Slice", bounds, s.ints([0]), s.ints([-1])))


def _number(dim: AnyDim) -> int:
    assert isinstance(dim, int)
    return dim
