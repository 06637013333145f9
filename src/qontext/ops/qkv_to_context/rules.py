"""What QKVToContext accepts, what comes out, and what it costs at least."""

from collections.abc import Mapping
from typing import Any

from ...graph.dims import AnyDim, Shape, text, times
from ..attention_common.checks import check_attributes, check_batch, check_heads, check_mask, check_presence
from ..attention_common.costs import attention_cost
from ..attention_common.layouts import (
    CONTEXT_OF,
    axes_of,
    divide,
    is_interleaved,
    is_packed,
    plus,
    shape_from_heads,
)
from ..attention_common.problem import kv_heads
from ..call import Call, Cost, Operand
from ..eight_bits import NONE

NAMES = (
    "qkv",
    "lengths",
    "mask",
    "bias",
    "cu_seqlens",
    "max_seqlen",
    "prefix_lengths",
    "context_scale",
    "context_zero",
    "context_factor",
)
Operands = tuple[Operand | None, ...]


def of_floats(inputs: Operands) -> Operands:
    """Operands of attention without those of a context in eight bits."""
    return (*inputs[:7], None, None, None)


def sizes_of(qkv: Operand, cu_seqlens: Operand | None, attributes: Mapping[str, Any]) -> dict[str, AnyDim]:
    """B, S (None when packed), T (None when padded) and D, from a projection of the right rank."""
    layout = attributes["layout"]
    assert qkv.shape is not None
    by_axis = dict(zip(axes_of(layout), qkv.shape, strict=True))
    if "D" in by_axis:
        head_size = by_axis["D"]
    else:
        fused = by_axis["N three D" if is_interleaved(layout) else "three N D"]
        head_size = divide(fused, attributes["num_heads"] + 2 * kv_heads(attributes))
    batch = by_axis.get("B")
    if is_packed(layout) and cu_seqlens is not None and cu_seqlens.shape:
        batch = plus(cu_seqlens.shape[0], -1)
    return {"B": batch, "S": by_axis.get("S"), "T": by_axis.get("T"), "D": head_size}


def check(inputs: Operands, attributes: Mapping[str, Any]) -> list[str]:
    """All problems with shapes and combinations of inputs and attributes."""
    given = dict(zip(NAMES, inputs, strict=True))
    qkv, layout = given["qkv"], attributes["layout"]
    assert qkv is not None
    problems = check_attributes(attributes, given["prefix_lengths"])
    problems += check_presence(is_packed(layout), layout, given, ("cu_seqlens", "max_seqlen"))
    if is_packed(layout) and given["lengths"] is not None:
        problems.append(f"input 'lengths' is given, but layout {layout!r} is packed: 'cu_seqlens' says the lengths")
    head_problems = check_heads(attributes["num_heads"], kv_heads(attributes))
    problems += head_problems or _check_projection(qkv, attributes)
    if problems or qkv.shape is None:
        return problems
    sizes = sizes_of(qkv, given["cu_seqlens"], attributes)
    problems += check_batch(sizes["B"], given, ("lengths", "prefix_lengths"))
    scores = (sizes["B"], attributes["num_heads"], sizes["S"], sizes["S"])
    problems += check_mask("mask", given["mask"], scores, larger=is_packed(layout), key_mask=True)
    problems += _check_eight_bits(given, attributes)
    return problems + check_mask("bias", given["bias"], scores, larger=True)


def _check_eight_bits(given: Mapping[str, Operand | None], attributes: Mapping[str, Any]) -> list[str]:
    """A context in eight bits has a static scale: no kernel of a head sees whole rows."""
    kind, scale, zero = attributes["eight_bits"], given["context_scale"], given["context_zero"]
    if kind == NONE:
        idle = [n for n in ("context_scale", "context_zero", "context_factor") if given[n] is not None]
        return [f"input {n!r} is given, but the context is in floats" for n in idle]
    problems = [] if scale is not None else [f"the context is wanted in {kind}, which needs 'context_scale'"]
    if (zero is not None) != (kind == "int8"):
        problems.append(f"input 'context_zero' is {'given' if zero else 'missing'}, and the context is {kind}")
    return problems


def _check_projection(qkv: Operand, attributes: Mapping[str, Any]) -> list[str]:
    """Rank and sizes of the projection against layout and heads."""
    heads, key_heads, layout = attributes["num_heads"], kv_heads(attributes), attributes["layout"]
    if key_heads != heads and "(three N D)" not in layout:
        return [
            f"num_kv_heads is {key_heads} and num_heads {heads}, but layout {layout!r} holds one key and one value "
            f"for each query head; fewer of them need a layout with '(three N D)'"
        ]
    if qkv.shape is None:
        return []
    axes = axes_of(layout)
    found = f"input 'qkv' has shape {text(qkv.shape)}"
    if len(qkv.shape) != len(axes):
        return [f"{found}, but layout {layout!r} needs {len(axes)} axes"]
    by_axis = dict(zip(axes, qkv.shape, strict=True))
    if "D" in by_axis:
        three, n = by_axis["three"], by_axis["N"]
        if isinstance(three, int) and isinstance(n, int) and (three, n) != (3, heads):
            other = "B S N three D" if layout == "B S three N D" else "B S three N D"
            swapped = f"; this is layout {other!r}" if (three, n) == (heads, 3) else ""
            wanted = "[B, S, 3, N, D]" if layout == "B S three N D" else "[B, S, N, 3, D]"
            return [f"{found}, but layout {layout!r} needs {wanted} with N={heads}{swapped}"]
        return []
    if layout.endswith(" 1 1") and any(isinstance(d, int) and d != 1 for d in qkv.shape[-2:]):
        return [f"{found}, but layout {layout!r} needs two axes of size 1 at the end"]
    fused = by_axis["N three D" if is_interleaved(layout) else "three N D"]
    parts = heads + 2 * key_heads
    if isinstance(fused, int) and (fused == 0 or fused % parts):
        return [
            f"{found}, its fused axis is {fused}, which is no multiple of "
            f"num_heads + 2 * num_kv_heads = {heads} + 2 * {key_heads} = {parts}"
        ]
    return []


def infer(inputs: Operands, attributes: Mapping[str, Any]) -> Operands:
    """context in the layout that belongs to the projection's, scores `[B, N, S, S]`, values `[B, Nkv, S, D]`."""
    qkv = inputs[0]
    assert qkv is not None
    kind = qkv.dtype if attributes["eight_bits"] == NONE else attributes["eight_bits"]
    if qkv.shape is None:
        return Operand(kind, None), Operand(qkv.dtype, None), Operand(qkv.dtype, None)
    heads = attributes["num_heads"]
    sizes = sizes_of(qkv, inputs[4], attributes)
    batch, length, size = sizes["B"], sizes["S"], sizes["D"]
    context = shape_from_heads(CONTEXT_OF[attributes["layout"]], batch, length, sizes["T"], heads, size)
    scores: Shape = (batch, heads, length, length)
    values: Shape = (batch, kv_heads(attributes), length, size)
    kinds = (kind, qkv.dtype, qkv.dtype)
    return tuple(Operand(dtype, shape) for dtype, shape in zip(kinds, (context, scores, values), strict=True))


def cost(call: Call) -> Cost:
    """The work of both products; a call with symbolic shapes has no cost (ValueError)."""
    qkv = call.inputs[0]
    assert qkv is not None
    sizes = sizes_of(qkv, call.input(4), call.attributes)
    tokens = sizes["T"] if is_packed(call.attributes["layout"]) else times(sizes["B"], sizes["S"])
    batch, size = sizes["B"], sizes["D"]
    if not (isinstance(tokens, int) and isinstance(batch, int) and isinstance(size, int)):
        raise ValueError(f"a cost needs numbers for sizes, the shape of qkv is {text(qkv.shape)}")
    return attention_cost(call, batch, tokens, tokens, call.attributes["num_heads"], (size, size))
