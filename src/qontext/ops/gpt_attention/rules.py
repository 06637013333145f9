"""What GptAttention accepts, what comes out, and what it costs at least. Every problem is one sentence."""

from collections.abc import Mapping
from typing import Any

from ...graph.dims import AnyDim, Shape, text
from ..call import Call, Cost, Operand
from ..kernel_checks import element_count
from .rows import INPUTS

QUANTISED = ("int8", "float8_e4m3")
LARGEST_HEAD = 256
Operands = tuple[Operand | None, ...]
_SCALES = ("kv_orig_quant_scale", "kv_quant_orig_scale")


def check(inputs: Operands, attributes: Mapping[str, Any]) -> list[str]:
    """All problems with shapes and with inputs and attributes that exclude each other or miss their partner."""
    given = dict(zip(INPUTS, inputs, strict=True))
    problems = _check_heads(attributes)
    if not problems:
        problems += _check_widths(given, attributes)
        problems += _check_cache_shape(given, attributes)
    problems += _check_positions(given, attributes)
    return problems + _check_presence(given, attributes)


def _check_heads(attributes: Mapping[str, Any]) -> list[str]:
    heads, kv_heads, size = (attributes[n] for n in ("num_heads", "num_kv_heads", "head_size"))
    problems = []
    if heads < 1 or kv_heads < 1:
        problems.append(f"num_heads is {heads} and num_kv_heads {kv_heads}, both have to be at least 1")
    elif heads % kv_heads:
        problems.append(f"num_heads is {heads}, which is no multiple of num_kv_heads {kv_heads}")
    if not 1 <= size <= LARGEST_HEAD:
        problems.append(f"head_size is {size}, allowed are 1 to {LARGEST_HEAD}")
    if attributes["q_scaling"] <= 0:
        problems.append(f"q_scaling is {attributes['q_scaling']}, it has to be larger than 0")
    return problems


def _check_widths(given: Mapping[str, Operand | None], attributes: Mapping[str, Any]) -> list[str]:
    heads, kv_heads, size = (attributes[n] for n in ("num_heads", "num_kv_heads", "head_size"))
    width = (heads + 2 * kv_heads) * size
    problems = []
    for name in ("qkv", "cross_qkv"):
        x = given[name]
        if x is None or x.shape is None:
            continue
        if len(x.shape) not in (2, 3):
            problems.append(
                f"input {name!r} has shape {text(x.shape)}, it needs [B, S, W], or packed [T, W] or [1, T, W]"
            )
        elif isinstance(x.shape[-1], int) and x.shape[-1] != width:
            problems.append(
                f"input {name!r} has {x.shape[-1]} columns, it needs (num_heads + 2 num_kv_heads) head_size = "
                f"({heads} + 2 x {kv_heads}) x {size} = {width}"
            )
    qkv = given["qkv"]
    each = attributes["tokens_each"]
    if each < 0:
        problems.append(f"tokens_each is {each}, it has to be 0 or more")
    elif each and qkv is not None and qkv.shape is not None and len(qkv.shape) != 2:
        problems.append(f"tokens_each is {each}, but input 'qkv' has shape {text(qkv.shape)}; it belongs to [T, W]")
    flat = qkv is not None and qkv.shape is not None and len(qkv.shape) == 2
    if flat and not each and given["query_lengths"] is None:
        problems.append("input 'query_lengths' is missing; packed 'qkv' [T, W] needs the new tokens of each sequence")
    bias = given["qkv_bias"]
    if bias is not None and bias.shape and isinstance(bias.shape[0], int) and bias.shape[0] != width:
        problems.append(
            f"input 'qkv_bias' has shape {text(bias.shape)}, it needs [{width}], one number a column of qkv"
        )
    slopes = given["alibi_slopes"]
    if slopes is not None and slopes.shape and _count(slopes.shape) not in (None, heads):
        problems.append(f"input 'alibi_slopes' has shape {text(slopes.shape)}, it needs [{heads}], one a head")
    table = given["relative_attention_bias"]
    if table is not None and table.shape and isinstance(table.shape[0], int) and table.shape[0] != heads:
        problems.append(f"input 'relative_attention_bias' has {table.shape[0]} heads, num_heads is {heads}")
    return problems


def _count(shape: Shape) -> int | None:
    total = 1
    for dim in shape:
        if not isinstance(dim, int):
            return None
        total *= dim
    return total


def _check_cache_shape(given: Mapping[str, Operand | None], attributes: Mapping[str, Any]) -> list[str]:
    past = given["past"]
    if past is None or past.shape is None or len(past.shape) != 5:
        return []
    kv_heads, size = attributes["num_kv_heads"], attributes["head_size"]
    wanted: tuple[AnyDim, ...] = (None, 2, kv_heads, None, size)
    if any(isinstance(a, int) and b is not None and a != b for a, b in zip(past.shape, wanted, strict=True)):
        paged = given["block_table"] is not None
        form = (
            f"[pages, 2, {kv_heads}, tokens of a page, {size}]" if paged else f"[slots, 2, {kv_heads}, length, {size}]"
        )
        return [f"input 'past' has shape {text(past.shape)}, it needs {form}"]
    if isinstance(past.shape[0], int) and past.shape[0] < 1:
        return ["input 'past' has no pages" if given["block_table"] is not None else "input 'past' has no slots"]
    return []


def _check_positions(given: Mapping[str, Operand | None], attributes: Mapping[str, Any]) -> list[str]:
    position, size, rotary = attributes["position"], attributes["head_size"], attributes["rotary_dim"]
    problems = []
    if position.startswith("rope"):
        if rotary < 2 or rotary % 2 or rotary > size:
            problems.append(
                f"rotary_dim is {rotary}, position {position!r} needs an even number from 2 to head_size {size}"
            )
        problems += _check_scaling(attributes)
    elif rotary:
        problems.append(
            f"rotary_dim is {rotary}, but position is {position!r}; rotary embeddings need position 'rope_...'"
        )
    alibi, table = given["alibi_slopes"], given["relative_attention_bias"]
    if position == "alibi" and alibi is None:
        problems.append("input 'alibi_slopes' is missing; position 'alibi' needs one slope a head")
    if position != "alibi" and alibi is not None:
        problems.append(f"input 'alibi_slopes' is given, but position is {position!r}; slopes need position 'alibi'")
    if position == "relative" and table is None:
        problems.append("input 'relative_attention_bias' is missing; position 'relative' needs a table of biases")
    if position != "relative" and table is not None:
        problems.append(f"input 'relative_attention_bias' is given, but position is {position!r}, expected 'relative'")
    if attributes["max_distance"] < 0:
        problems.append(f"max_distance is {attributes['max_distance']}, it has to be 0 (a table by positions) or more")
    elif table is not None and table.shape is not None and len(table.shape) in (2, 3):
        implicit = attributes["max_distance"] > 0
        if implicit != (len(table.shape) == 2):
            form = "[num_heads, buckets]" if implicit else "[num_heads, longest, longest]"
            problems.append(
                f"input 'relative_attention_bias' has shape {text(table.shape)}, with max_distance "
                f"{attributes['max_distance']} it needs {form}"
            )
    return problems


def _check_scaling(attributes: Mapping[str, Any]) -> list[str]:
    kind, factor, trained = (attributes[f"rotary_{n}"] for n in ("scaling", "factor", "max_positions"))
    problems = []
    if attributes["rotary_base"] <= 1:
        problems.append(f"rotary_base is {attributes['rotary_base']}, it has to be larger than 1")
    if kind == "none" and factor != 1.0:
        problems.append(f"rotary_factor is {factor}, but rotary_scaling is 'none'; it has to be 1 then")
    if kind != "none" and factor < 1.0:
        problems.append(f"rotary_factor is {factor}, rotary_scaling {kind!r} needs 1 or more")
    if kind in ("dynamic", "yarn", "llama3") and trained < 1:
        problems.append(f"rotary_max_positions is {trained}, rotary_scaling {kind!r} needs the trained length")
    if kind == "dynamic" and attributes["rotary_dim"] == 2:
        problems.append("rotary_dim is 2, rotary_scaling 'dynamic' needs 4 or more")
    if kind in ("yarn", "llama3") and not 0 < attributes["rotary_low"] < attributes["rotary_high"]:
        low, high = attributes["rotary_low"], attributes["rotary_high"]
        problems.append(f"rotary_low is {low} and rotary_high {high}, rotary_scaling {kind!r} needs 0 < low < high")
    return problems


def _check_presence(given: Mapping[str, Operand | None], attributes: Mapping[str, Any]) -> list[str]:
    past = given["past"]
    problems = []
    if past is None:
        alone = [
            n for n in ("past_lengths", "slots", "block_table", "cache_indirection", *_SCALES) if given[n] is not None
        ]
        problems += [f"input {n!r} is given, but 'past' is not; it belongs to a cache" for n in alone]
        if given["encoder_lengths"] is not None and given["cross_qkv"] is None:
            problems.append("'encoder_lengths' is given without 'cross_qkv' or 'past'; there is nothing to attend to")
    else:
        missing = [n for n in _SCALES if given[n] is None]
        if past.dtype in QUANTISED and missing:
            problems.append(f"input 'past' is {past.dtype}, which needs {' and '.join(map(repr, missing))}")
        if past.dtype not in QUANTISED and len(missing) < 2:
            names = " and ".join(repr(n) for n in _SCALES if given[n] is not None)
            problems.append(
                f"{names} {'is' if missing else 'are'} given, but 'past' is {past.dtype}; 8-bit caches take them"
            )
        if given["past_lengths"] is None and given["encoder_lengths"] is None:
            problems.append("input 'past_lengths' is missing; a cache needs the tokens that each sequence has in it")
    if given["cross_qkv"] is not None and given["encoder_lengths"] is None:
        problems.append("input 'encoder_lengths' is missing; 'cross_qkv' needs the tokens of each encoder output")
    cross = given["encoder_lengths"] is not None
    if cross and attributes["mask_type"] != "padding":
        problems.append(f"mask_type is {attributes['mask_type']!r}, cross attention needs 'padding': it sees all keys")
    if cross and attributes["position"] not in ("none", "relative"):
        problems.append(f"position is {attributes['position']!r}, cross attention takes 'none' or 'relative'")
    prefix = given["prefix_lengths"] is not None
    if prefix != (attributes["mask_type"] == "bidirectional"):
        what = "is given" if prefix else "is missing"
        problems.append(
            f"input 'prefix_lengths' {what}, mask_type is {attributes['mask_type']!r}; 'bidirectional' needs it"
        )
    return problems + _check_window(given, attributes)


def _check_window(given: Mapping[str, Operand | None], attributes: Mapping[str, Any]) -> list[str]:
    window, sinks = attributes["window"], attributes["sinks"]
    problems = []
    if window < 0 or sinks < 0:
        problems.append(f"window is {window} and sinks {sinks}, both have to be 0 or more")
    if sinks and not window:
        problems.append(f"sinks is {sinks}, but window is 0; sinks are what a window leaves visible")
    if window and attributes["mask_type"] == "padding":
        problems.append(f"window is {window}, but mask_type is 'padding'; a window needs 'causal' or 'bidirectional'")
    if window and given["cache_indirection"] is not None:
        problems.append(
            f"window is {window} and 'cache_indirection' is given; beams go through caches that keep all tokens"
        )
    if attributes["softcap"] < 0:
        problems.append(f"softcap is {attributes['softcap']}, it has to be 0 (none) or more")
    return problems


def infer(inputs: Operands, attributes: Mapping[str, Any]) -> Operands:
    """The context in the shape of qkv with N * D columns; the cache as it came in."""
    qkv, past = inputs[:2]
    assert qkv is not None
    width = attributes["num_heads"] * attributes["head_size"]
    shape = None if qkv.shape is None else (*qkv.shape[:-1], width)
    return Operand(qkv.dtype, shape), None if past is None else Operand(past.dtype, past.shape)


def cost(call: Call) -> Cost:
    """Every place of the cache read once (paged: of the table), beside qkv and the context.

    How full the cache is only the run knows: this is the cost of full ones, and with no cache that of equal sequences.
    Raises ValueError for symbolic shapes.
    """
    attributes, qkv, past, table = call.attributes, call.inputs[0], call.inputs[1], call.inputs[5]
    assert qkv is not None
    heads, size = attributes["num_heads"], attributes["head_size"]
    moved = sum(element_count(o) * o.type.bits / 8 for o in (qkv, call.outputs[0]) if o is not None)
    width = (heads + 2 * attributes["num_kv_heads"]) * size
    tokens = element_count(qkv) // width
    lengths = call.inputs[3]
    assert qkv.shape is not None
    rows = element_count(lengths) if lengths is not None else qkv.shape[0] if len(qkv.shape) == 3 else 1
    assert isinstance(rows, int)
    if past is None:
        return Cost(moved, 2.0 * heads * 2 * size * tokens * tokens / max(rows, 1))
    held = element_count(past)
    if table is not None:
        assert past.shape is not None
        page = past.shape[1] * past.shape[2] * past.shape[3] * past.shape[4]  # type: ignore[operator]
        held = min(held, element_count(table) * page)
    places = held / (2 * attributes["num_kv_heads"] * size)
    moved += held * past.type.bits / 8
    if call.wants(1):
        moved = max(moved, 2 * element_count(past) * past.type.bits / 8)
    return Cost(moved, 2.0 * heads * 2 * size * places * tokens / max(rows, 1))
