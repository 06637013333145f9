"""What Attention accepts, what comes out, and what it costs at least."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...graph.dims import AnyDim, Shape, text, times
from ..attention_common.checks import (
    check_attributes,
    check_batch,
    check_heads,
    check_mask,
    check_presence,
    differs,
)
from ..attention_common.costs import attention_cost
from ..attention_common.layouts import axes_of, divide, is_packed, plus, shape_from_heads
from ..attention_common.problem import kv_heads
from ..call import Call, Cost, Operand

NAMES = (
    "query",
    "key",
    "value",
    "mask",
    "bias",
    "past_key",
    "past_value",
    "key_lengths",
    "cu_seqlens_q",
    "cu_seqlens_kv",
    "max_seqlen_q",
    "max_seqlen_kv",
    "prefix_lengths",
)
_PACKED_KEYS = ("cu_seqlens_kv", "max_seqlen_kv")
Operands = tuple[Operand | None, ...]


@dataclass(frozen=True)
class Part:
    """Sizes of a query, key or value: batch and length (None when packed), tokens (None when padded), heads, size."""

    batch: AnyDim
    length: AnyDim
    tokens: AnyDim
    heads: AnyDim
    size: AnyDim


def part_of(operand: Operand, layout: str, heads: int) -> Part:
    """Reads the sizes of an operand of the right rank; `heads` is 0 where the shape says it."""
    assert operand.shape is not None
    by_axis = dict(zip(axes_of(layout), operand.shape, strict=True))
    count = by_axis.get("N", heads)
    size = by_axis["D"] if "D" in by_axis else divide(by_axis["N D"], heads)
    return Part(by_axis.get("B"), by_axis.get("S"), by_axis.get("T"), count, size)


def total_keys(inputs: Operands, key: Part) -> AnyDim:
    """Past keys and new ones together."""
    past = inputs[5]
    if past is None:
        return key.length
    return None if past.shape is None else plus(key.length, past.shape[2])


def check(inputs: Operands, attributes: Mapping[str, Any]) -> list[str]:
    """All problems with shapes and combinations of inputs and attributes."""
    given = dict(zip(NAMES, inputs, strict=True))
    layout = attributes["layout"]
    packed = is_packed(layout)
    problems = check_attributes(attributes, given["prefix_lengths"])
    problems += check_presence(packed, layout, given, ("cu_seqlens_q", "max_seqlen_q"), _PACKED_KEYS)
    problems += _check_combinations(given, layout)
    problems += _check_ranks(given, layout, attributes)
    if problems or any(given[name].shape is None for name in NAMES[:3]):  # type: ignore[union-attr]
        return problems
    query, key, value = parts_of(inputs, attributes)
    problems += _check_parts(query, key, value, attributes)
    if problems:
        return problems
    batch = _batch(query, given["cu_seqlens_q"])
    problems += check_batch(batch, given, ("key_lengths", "prefix_lengths"))
    if given["cu_seqlens_kv"] is None and differs(query.tokens, key.tokens):
        problems.append(
            f"'query' has {query.tokens} tokens and 'key' {key.tokens}: without 'cu_seqlens_kv' they are the same"
        )
    problems += _check_past(given, key, value)
    scores = (batch, query.heads, query.length, total_keys(inputs, key))
    problems += check_mask("mask", given["mask"], scores, larger=packed, key_mask=True)
    return problems + check_mask("bias", given["bias"], scores, larger=True)


def parts_of(inputs: Operands, attributes: Mapping[str, Any]) -> tuple[Part, Part, Part]:
    """Sizes of query, key and value, whose ranks are known and right."""
    query, key, value = inputs[:3]
    assert query is not None
    assert key is not None
    assert value is not None
    layout, key_heads = attributes["layout"], kv_heads(attributes)
    return (
        part_of(query, layout, attributes["num_heads"]),
        part_of(key, layout, key_heads),
        part_of(value, layout, key_heads),
    )


def _batch(query: Part, cu_seqlens: Operand | None) -> AnyDim:
    if cu_seqlens is not None and cu_seqlens.shape:
        return plus(cu_seqlens.shape[0], -1)
    return query.batch


def _check_combinations(given: Mapping[str, Operand | None], layout: str) -> list[str]:
    problems = []
    past = [name for name in ("past_key", "past_value") if given[name] is not None]
    if len(past) == 1:
        problems.append(f"input {past[0]!r} is given alone; past_key and past_value come together")
    if past and given["key_lengths"] is not None:
        problems.append(
            "inputs 'past_key' and 'key_lengths' are both given; a cache is joined here or outside, not both"
        )
    if is_packed(layout):
        wrong = [name for name in ("past_key", "past_value", "key_lengths") if given[name] is not None]
        if wrong:
            problems.append(f"layout {layout!r} is packed and takes no {' and '.join(repr(n) for n in wrong)}")
        if (given["cu_seqlens_kv"] is None) != (given["max_seqlen_kv"] is None):
            problems.append("'cu_seqlens_kv' and 'max_seqlen_kv' come together; without them the queries' count")
    return problems


def _check_ranks(given: Mapping[str, Operand | None], layout: str, attributes: Mapping[str, Any]) -> list[str]:
    heads, key_heads = attributes["num_heads"], attributes["num_kv_heads"]
    axes = axes_of(layout)
    problems = [
        f"input {name!r} has shape {text(x.shape)}, but layout {layout!r} needs {len(axes)} axes"
        for name in NAMES[:3]
        if (x := given[name]) is not None and x.shape is not None and len(x.shape) != len(axes)
    ]
    if "N D" in axes and heads < 1:
        problems.append(f"num_heads is {heads}, but layout {layout!r} holds heads and head size in one axis; state it")
    if min(heads, key_heads) < 0:
        problems.append(f"num_heads is {heads} and num_kv_heads {key_heads}, they cannot be negative")
    return problems


def _check_parts(query: Part, key: Part, value: Part, attributes: Mapping[str, Any]) -> list[str]:
    """Agreement of the three operands with each other and with the attributes."""
    problems = []
    stated = {"query": attributes["num_heads"], "key": kv_heads(attributes), "value": kv_heads(attributes)}
    parts = {"query": query, "key": key, "value": value}
    for name, part in parts.items():
        if stated[name] and differs(part.heads, stated[name]):
            problems.append(f"input {name!r} has {part.heads} heads, the attributes say {stated[name]}")
        if part.size is None and part.heads and isinstance(part.length or part.tokens, int):
            problems.append(f"the last axis of input {name!r} is no multiple of its {part.heads} heads")
    for what, a, b in (
        ("batch size", query.batch, key.batch),
        ("head size", query.size, key.size),
    ):
        if differs(a, b):
            problems.append(f"inputs 'query' and 'key' have {what} {a} and {b}; they have to be equal")
    for what, a, b in (
        ("batch size", key.batch, value.batch),
        ("length", key.length, value.length),
        ("tokens", key.tokens, value.tokens),
        ("heads", key.heads, value.heads),
    ):
        if differs(a, b):
            problems.append(f"inputs 'key' and 'value' have {what} {a} and {b}; they have to be equal")
    if isinstance(query.heads, int) and isinstance(key.heads, int):
        problems += check_heads(query.heads, key.heads)
    return problems


def _check_past(given: Mapping[str, Operand | None], key: Part, value: Part) -> list[str]:
    problems = []
    for name, part in (("past_key", key), ("past_value", value)):
        past = given[name]
        if past is None or past.shape is None:
            continue
        wanted: Shape = (part.batch, part.heads, None, part.size)
        if len(past.shape) != 4 or any(differs(a, b) for a, b in zip(past.shape, wanted, strict=True)):
            problems.append(
                f"input {name!r} has shape {text(past.shape)}, it needs [B, Nkv, past length, D] = {text(wanted)}"
            )
    return problems


def infer(inputs: Operands, attributes: Mapping[str, Any]) -> Operands:
    """context in the layout of the query, present key and value `[B, Nkv, Skv, D]`, scores `[B, N, S, Skv]`."""
    dtype = inputs[0].dtype if inputs[0] is not None else ""
    if any(x is None or x.shape is None for x in inputs[:3]):
        return tuple(Operand(dtype, None) for _ in range(4))
    query, key, value = parts_of(inputs, attributes)
    batch, total = _batch(query, inputs[8]), total_keys(inputs, key)
    context = shape_from_heads(attributes["layout"], batch, query.length, query.tokens, query.heads, value.size)
    shapes: tuple[Shape, ...] = (
        context,
        (batch, key.heads, total, key.size),
        (batch, key.heads, total, value.size),
        (batch, query.heads, query.length, total),
    )
    return tuple(Operand(dtype, shape) for shape in shapes)


def cost(call: Call) -> Cost:
    """The work of both products; a call with symbolic shapes has no cost (ValueError)."""
    query, key, value = parts_of(call.inputs, call.attributes)
    batch = _batch(query, call.input(8))
    tokens = query.tokens if query.length is None else times(query.batch, query.length)
    keys = key.tokens if key.length is None else times(key.batch, total_keys(call.inputs, key))
    numbers = (batch, tokens, keys, query.heads, key.size, value.size)
    if not all(isinstance(n, int) for n in numbers):
        raise ValueError(f"a cost needs numbers for sizes, they are {numbers}")
    b, t, k, n, d, dv = (int(x) for x in numbers)  # type: ignore[arg-type]
    return attention_cost(call, b, t, k, n, (d, dv))
