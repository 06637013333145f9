"""The ONNX function body that both operators share: from heads to context, in standard operators of opset 20."""

from dataclasses import dataclass
from math import inf

from ..call import Operand
from .mask_operand import is_boolean
from .problem import Rule
from .statements import Statements

FLOAT, INT64, BOOL = 1, 7, 9


@dataclass(frozen=True)
class Side:
    """Where the tokens of queries or keys stand, as names of int64 vectors: position within the sequence, and for
    packed sequences the number of the sequence (else empty)."""

    position: str
    segment: str = ""


@dataclass(frozen=True)
class BodyCall:
    """What the body depends on beside its tensors.

    mask, bias:   the operands, when present; they are called so in the body too
    mask_means:   the attribute
    lengths:      name of the counts `[B]`, or ""
    offset:       name of the place of the first query among the keys: a number, `[B, 1, 1, 1]` or (packed) `[S, 1]`;
                  or "" for 0
    dq_probs:     None, or how probabilities become bytes, as QuantQKVToContext says it
    """

    rule: Rule
    groups: int
    kv_heads: int
    mask: Operand | None
    mask_means: str
    bias: Operand | None
    lengths: str = ""
    prefix: str = ""
    offset: str = ""
    dq_probs: float | None = None

    @property
    def boolean_mask(self) -> bool:
        """The mask says which keys are attended to."""
        return is_boolean(self.mask, {"mask_means": self.mask_means})


def padded_side(s: Statements, x: str) -> Side:
    """Positions 0, 1, ... along axis 2 of `x`."""
    count = s.add("Squeeze", s.add("Shape", x, start=2, end=3), s.ints([0]))
    return Side(s.add("Range", s.whole(0), count, s.whole(1)))


def packed_side(s: Statements, x: str, cu_seqlens: str) -> Side:
    """Positions and sequence numbers along axis 2 of `x`, from the boundaries `[B+1]`."""
    token = padded_side(s, x).position
    bounds = s.add("Cast", cu_seqlens, to_=INT64)
    ends = s.add("Slice", bounds, s.ints([1]), s.ints([2**31 - 1]))
    passed = s.add("GreaterOrEqual", s.unsqueeze(token, 1), s.unsqueeze(ends, 0))
    segment = s.add("ReduceSum", s.add("Cast", passed, to_=INT64), s.ints([1]), keepdims=0)
    return Side(s.add("Sub", token, s.add("Gather", bounds, segment)), segment)


def expressible(mask: Operand | None, bias: Operand | None, packed: bool) -> bool:
    """Standard operators can place these: all but a packed mask or bias that differs by sequence and row."""
    if not packed:
        return True
    return all(x is None or (x.shape is not None and (len(x.shape) == 2 or x.shape[0] == 1)) for x in (mask, bias))


def attention(
    s: Statements, call: BodyCall, query: str, key: str, value: str, queries: Side, keys: Side
) -> dict[str, str]:
    """Appends attention over `[B, N, S, D]`, `[B, Nkv, Skv, D]`, `[B, Nkv, Skv, Dv]`, all float32.

    Returns:
        names of "scaled", "capped", "masked", "probs" `[B, N, S, Skv]` and "context" `[B, N, S, Dv]`.
    """
    if call.groups > 1:
        index = s.ints([n // call.groups for n in range(call.groups * call.kv_heads)])
        key, value = s.add("Gather", key, index, axis=1), s.add("Gather", value, index, axis=1)
    product = s.add("MatMul", query, s.add("Transpose", key, perm=[0, 1, 3, 2]))
    scaled = s.add("Mul", product, s.number(call.rule.scale))
    capped = scaled
    if call.rule.softcap:
        cap = s.number(call.rule.softcap)
        capped = s.add("Mul", s.add("Tanh", s.add("Div", scaled, cap)), cap)
    unmasked = capped
    added = None if call.boolean_mask else call.mask
    for name, operand in (("mask", added), ("bias", call.bias)):
        if operand is not None:
            part = _placed(s, name, operand, queries, keys, cut=name == "bias")
            unmasked = s.add("Add", unmasked, part if operand.dtype == "float32" else s.add("Cast", part, to_=FLOAT))
    same = ""
    if queries.segment:
        same = s.add("Equal", s.unsqueeze(queries.segment, 1), s.unsqueeze(keys.segment, 0))
        unmasked = s.add("Where", same, unmasked, s.number(-inf))
    allowed = _allowed(s, call, queries, keys)
    masked = s.add("Where", allowed, unmasked, s.number(-inf)) if allowed else unmasked
    may_be_empty = bool(allowed or same or unmasked != capped)
    probs = _softmax(s, call, unmasked, masked, same) if may_be_empty else s.add("Softmax", masked, axis=-1)
    if call.dq_probs is None:
        context = s.add("MatMul", probs, value)
    else:
        held, step = _bytes(s, probs, call.dq_probs)
        context = s.add("Mul", s.add("MatMul", held, value), step)
    return {"scaled": scaled, "capped": capped, "masked": masked, "probs": probs, "context": context}


def _softmax(s: Statements, call: BodyCall, unmasked: str, masked: str, same: str) -> str:
    """Softmax whose wholly masked rows are what `empty_row` says."""
    how, zero = call.rule.empty_row, s.number(0.0)
    if how == "as_unmasked":
        masked = s.add("Where", _empty(s, masked), unmasked, masked)
    empty = _empty(s, masked)
    fill = zero
    if same and how == "uniform":
        fill = s.add("Where", same, zero, s.number(-inf))
    probs = s.add("Softmax", s.add("Where", empty, fill, masked), axis=-1)
    return probs if how == "uniform" else s.add("Where", empty, zero, probs)


def _bytes(s: Statements, probs: str, dq_probs: float) -> tuple[str, str]:
    """Probabilities as whole numbers up to 127, and what 1 of them stands for."""
    most = s.number(127.0)
    if dq_probs:
        units = s.add("Round", s.add("Div", probs, s.number(dq_probs)))
        return s.add("Min", units, most), s.number(dq_probs)
    none = s.number(1e-30)  # rows without a key have no largest
    largest = s.add("Max", s.add("ReduceMax", probs, s.ints([-1]), keepdims=1), none)
    held = s.add("Round", s.add("Mul", s.add("Div", probs, largest), most))
    whole = s.add("Max", s.add("ReduceSum", held, s.ints([-1]), keepdims=1), none)
    return held, s.add("Reciprocal", whole)


def _empty(s: Statements, masked: str) -> str:
    return s.add("IsInf", s.add("ReduceMax", masked, s.ints([-1]), keepdims=1), detect_positive=0)


def _placed(s: Statements, name: str, operand: Operand, queries: Side, keys: Side, cut: bool) -> str:
    """A mask or bias brought to `[B|1, N|1, S|1, Skv]`, picked by position when packed, else cut to size if `cut`."""
    assert operand.shape is not None
    if len(operand.shape) == 2:
        if not keys.segment:
            return s.unsqueeze(name, 1, 2)
        place = s.add("Concat", s.unsqueeze(keys.segment, 1), s.unsqueeze(keys.position, 1), axis=1)
        return s.add("GatherND", name, place)
    if len(operand.shape) == 3:
        name = s.unsqueeze(name, 1)
    one_row = operand.shape[-2] == 1
    if keys.segment:
        rows = name if one_row else s.add("Gather", name, queries.position, axis=2)
        return s.add("Gather", rows, keys.position, axis=3)
    if not cut:
        return name
    sizes = [s.add("Shape", side.position) for side in (queries, keys)]
    axes = [3] if one_row else [2, 3]
    ends = sizes[1] if one_row else s.add("Concat", *sizes, axis=0)
    return s.add("Slice", name, s.ints([0] * len(axes)), ends, s.ints(axes))


def _allowed(s: Statements, call: BodyCall, queries: Side, keys: Side) -> str:
    """The conjunction of counts, boolean mask, kind and window; "" when everything is allowed."""
    parts: list[str] = []
    rule = call.rule
    if call.lengths:
        counts = s.unsqueeze(s.add("Cast", call.lengths, to_=INT64), 1, 2, 3)
        parts.append(s.add("Less", keys.position, counts))
    if call.mask is not None and call.boolean_mask:
        name = "mask" if call.mask.dtype == "bool" else s.add("Cast", "mask", to_=BOOL)
        if call.mask_means == "ignore":
            name = s.add("Not", name)
        parts.append(_placed(s, name, call.mask, queries, keys, cut=False))
    if rule.kind != "full" or rule.window_left >= 0 or rule.window_right >= 0:
        row = s.unsqueeze(queries.position, 1)
        distance = s.add("Sub", s.add("Add", row, call.offset) if call.offset else row, keys.position)
        if rule.kind != "full":
            causal = s.add("GreaterOrEqual", distance, s.whole(0))
            parts.append(s.add("Or", causal, _in_prefix(s, call, queries, keys)) if call.prefix else causal)
        if rule.window_left >= 0:
            parts.append(s.add("LessOrEqual", distance, s.whole(rule.window_left)))
        if rule.window_right >= 0:
            parts.append(s.add("GreaterOrEqual", distance, s.whole(-rule.window_right)))
    result = parts[0] if parts else ""
    for part in parts[1:]:
        result = s.add("And", result, part)
    return result


def _in_prefix(s: Statements, call: BodyCall, queries: Side, keys: Side) -> str:
    counts = s.add("Cast", call.prefix, to_=INT64)
    if queries.segment:
        return s.add("Less", keys.position, s.unsqueeze(s.add("Gather", counts, queries.segment), 1))
    return s.add("Less", keys.position, s.unsqueeze(counts, 1, 2, 3))
