"""QuantQKVToContext as an ONNX function body: operands are moved to the levels of bytes, sums are those of floats.

float8_e4m3 has none: its probabilities are counted from a power of two above each row's largest logit, and the body
that all attention shares hands on probabilities, not logits.
"""

from ..attention_common.body import INT64, Side
from ..attention_common.statements import Statements
from ..call import Call
from ..qkv_to_context.body import body_with
from .rules import QKV_SCALE


def body(call: Call) -> str | None:
    """The statements for this call; None where QKVToContext has none, and for float8_e4m3."""
    if call.attributes["eight_bits"] != "int8":
        return None
    return body_with(call, _on_levels, call.attributes["dq_probs"])


def _on_levels(s: Statements, call: Call, query: str, key: str, value: str, side: Side) -> tuple[str, str, str]:
    """Query, key and value `[B, N, S, D]` in float32, as their bytes stand for them."""
    qkv, given = call.inputs[0], call.input(QKV_SCALE)
    assert qkv is not None
    scales: list[str] = []
    if given is not None:
        one = given.shape == ()
        scales = ["qkv_scale"] * 3 if one else [s.add("Gather", "qkv_scale", s.whole(i)) for i in range(3)]
    if qkv.dtype == "int8":
        query, key, value = (s.add("Mul", x, scale) for x, scale in zip((query, key, value), scales, strict=True))
        return query, key, value
    if not scales:
        scales = [_by_largest(s, s.add("Abs", x)) for x in (query, key)] + [_of_values(s, call, value, side)]
    most, least = s.number(127.0), s.number(-127.0)
    moved = []
    for x, scale in zip((query, key, value), scales, strict=True):
        units = s.add("Round", s.add("Mul", x, s.add("Reciprocal", scale)))
        moved.append(s.add("Mul", s.add("Clip", units, least, most), scale))
    return moved[0], moved[1], moved[2]


def _by_largest(s: Statements, magnitudes: str) -> str:
    """The scale that makes the largest of each row 127; 1 for rows of zeros."""
    return _scale(s, s.add("ReduceMax", magnitudes, s.ints([-1]), keepdims=1))


def _scale(s: Statements, largest: str) -> str:
    empty = s.add("Less", largest, s.number(1e-30))
    return s.add("Where", empty, s.number(1.0), s.add("Div", largest, s.number(127.0)))


def _of_values(s: Statements, call: Call, value: str, side: Side) -> str:
    """The scales of V: `[B, N, 1, 1]`, over the valid rows; packed `[1, N, T, 1]`, over those of the same sequence."""
    rows = s.add("ReduceMax", s.add("Abs", value), s.ints([-1]), keepdims=1)
    if side.segment:
        same = s.add("Equal", s.unsqueeze(side.segment, 1), s.unsqueeze(side.segment, 0))
        along = s.add("Transpose", rows, perm=[0, 1, 3, 2])
        return _by_largest(s, s.add("Where", same, along, s.number(0.0)))
    if call.input(1) is not None:
        counts = s.unsqueeze(s.add("Cast", "lengths", to_=INT64), 1, 2, 3)
        none = s.add("LessOrEqual", counts, s.whole(0))
        counts_row = s.add("Or", s.add("Less", s.unsqueeze(side.position, 1), counts), none)
        rows = s.add("Where", counts_row, rows, s.number(0.0))
    return _scale(s, s.add("ReduceMax", rows, s.ints([2]), keepdims=1))
