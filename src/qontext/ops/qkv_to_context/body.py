"""QKVToContext as an ONNX function body."""

from collections.abc import Callable

from ..attention_common.body import FLOAT, BodyCall, Side, attention, expressible, packed_side, padded_side
from ..attention_common.layouts import is_packed
from ..attention_common.problem import kv_heads, rule_of
from ..attention_common.statements import Statements
from ..call import Call, Operand
from ..eight_bits import NONE
from .rules import sizes_of

# From the projection, reshaped to five axes (packed: with a batch axis of 1), to [3, B, N, S, D].
_TO_THREE = {
    "B S (N three D)": [3, 0, 2, 1, 4],
    "T (N three D)": [3, 0, 2, 1, 4],
    "S B (N three D) 1 1": [3, 1, 2, 0, 4],
    "B S three N D": [2, 0, 3, 1, 4],
    "B S N three D": [3, 0, 2, 1, 4],
}


# (statements, call, query, key, value, their side) -> query, key and value on the levels of bytes.
OnLevels = Callable[[Statements, Call, str, str, str, Side], tuple[str, str, str]]


def body(call: Call) -> str | None:
    """The statements for this call; None when D is unknown, for what packed calls cannot say, and for eight bits."""
    return body_with(call) if call.attributes["eight_bits"] == NONE else None


def body_with(call: Call, on_levels: OnLevels | None = None, dq_probs: float | None = None) -> str | None:
    """As `body`; with `on_levels` for attention over bytes, whose context may be bytes too."""
    qkv = call.inputs[0]
    assert qkv is not None
    attributes, layout = call.attributes, call.attributes["layout"]
    heads, key_heads, packed = attributes["num_heads"], kv_heads(attributes), is_packed(layout)
    head_size = None if qkv.shape is None else sizes_of(qkv, call.input(4), attributes)["D"]
    padded_outputs = call.wants(1) or call.wants(2)
    if (
        not isinstance(head_size, int)
        or not expressible(call.input(2), call.input(3), packed)
        or (packed and padded_outputs)
    ):
        return None
    s = Statements()
    variant = BodyCall(
        rule=rule_of(attributes, head_size),
        groups=heads // key_heads,
        kv_heads=key_heads,
        mask=call.input(2),
        mask_means=attributes["mask_means"],
        bias=call.input(3),
        lengths="lengths" if call.input(1) else "",
        prefix="prefix_lengths" if call.input(6) else "",
        dq_probs=dq_probs,
    )
    query, key, value = _heads(s, layout, heads, key_heads, head_size)
    if call.wants(2):
        s.add("Identity", value, to="values")
    if qkv.dtype != "float32":
        query, key, value = (s.add("Cast", x, to_=FLOAT) for x in (query, key, value))
    side = packed_side(s, query, "cu_seqlens") if packed else padded_side(s, query)
    if on_levels is not None:
        query, key, value = on_levels(s, call, query, key, value, side)
    steps = attention(s, variant, query, key, value, side, side)
    if call.wants(1):
        s.add("Cast", steps["masked"], to="scores", to_=_onnx(qkv))
    found, result = steps["context"], call.outputs[0]
    assert result is not None
    if result.dtype == "int8":
        units = s.add("Round", s.add("Div", found, "context_scale"))
        found = s.add("Clip", units, s.number(-128.0), s.number(127.0))
    context = s.add("Cast", found, to_=_onnx(result))
    rows = s.add("Transpose", context, perm=[2, 0, 1, 3] if layout.startswith("S B") else [0, 2, 1, 3])
    size = heads * head_size
    shape = [-1, size] if packed else [0, 0, size, 1, 1] if layout.endswith(" 1 1") else [0, 0, size]
    s.reshape(rows, shape, to="context")
    return s.text()


def _heads(s: Statements, layout: str, heads: int, key_heads: int, size: int) -> list[str]:
    """Query, key and value as `[B, N, S, D]`; a packed projection becomes one sequence."""
    x = s.unsqueeze("qkv", 0) if is_packed(layout) else "qkv"
    if layout in _TO_THREE:
        if "(" in layout:
            x = s.reshape(x, [0, 0, heads, 3, size])
        three = s.add("Transpose", x, perm=_TO_THREE[layout])
        return [s.add("Gather", three, s.whole(i), axis=0) for i in range(3)]
    flat = s.reshape(x, [0, 0, heads + 2 * key_heads, size])
    together = s.add("Transpose", flat, perm=[1, 2, 0, 3] if layout.startswith("S B") else [0, 2, 1, 3])
    return s.split(together, 1, [heads, key_heads, key_heads])


def _onnx(operand: Operand) -> int:
    return int(operand.type.onnx)
