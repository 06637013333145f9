"""Attention of ONNX Runtime's `com.microsoft` domain.

Masks there are added: a masked key gets `mask_filter_value` (a large negative number) on top of its score. So a row
whose keys are all masked is an ordinary softmax, which our operators call `empty_row="as_unmasked"`.
"""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch

from ..graph.dims import AnyDim, text
from ..ops.attention.op import OP as ATTENTION
from ..ops.qkv_to_context.op import OP as QKV_TO_CONTEXT
from ..ops.rotary_embedding.op import OP as ROTARY
from .contrib_site import Site, same

Results = Sequence[ir.Value | None]

_INT64, _BOOL = 7, 9
# A filter value is as good as a mask when the softmax cannot tell it from -inf.
_LARGEST_FILTER = -1e3


def attention(site: Site) -> Results:
    """Attention: projection of the input, then self attention. Caches (past, present) are refused."""
    x, weight, bias = site.needed(0, "input"), site.needed(1, "weights"), site.input(2)
    heads = site.integer("num_heads")
    sizes = site.integers("qkv_hidden_sizes")
    site.integer("do_rotary", 0, (0,))
    site.integer("past_present_share_buffer", 0, (0, 1))  # says how a cache lies in memory; there is none
    site.integer("rotary_embedding_dim", 0)  # likewise, without do_rotary
    _refuse(site, {4: "past", 6: "past_sequence_length"})
    qkv = site.add("MatMul", x, weight)
    if bias is not None:
        qkv = site.add("Add", qkv, bias)
    settings, fill = _settings(site, heads)
    batch, length = site.shape(x, "input")[:2]
    lengths, mask = _masks(site, site.input(3), "mask_index", batch, length)
    lengths, mask = _under_causal(site, lengths, mask, qkv, settings, fill)
    mask, added = _with_bias(site, mask, site.input(5), "attention_bias")
    if sizes is None or len(set(sizes)) == 1:
        operands = (qkv, lengths, mask, added)
        return [site.add(QKV_TO_CONTEXT, *operands, layout="B S (three N D)", **settings)]
    if len(sizes) != 3:
        raise site.refusal(f"attribute 'qkv_hidden_sizes' is {sizes}; allowed are three sizes")
    query, key, value = site.add("Split", qkv, site.numbers(sizes, "sizes"), wanted=(True, True, True), axis=-1)
    return [site.add(ATTENTION, query, key, value, mask, added, None, None, lengths, **settings)]


def multi_head_attention(site: Site) -> Results:
    """MultiHeadAttention: separate or packed operands, self or cross attention, with or without past and present."""
    query, key, value, bias = site.needed(0, "query"), site.input(1), site.input(2), site.input(3)
    _refuse(site, {8: "past_sequence_length", 9: "cache_indirection"})
    heads = site.integer("num_heads")
    settings, fill = _settings(site, heads)
    shape = site.shape(query, "query")
    batch = shape[0]
    if key is None:
        if len(shape) != 5:
            raise site.refusal(f"there is no key, and query has shape {text(shape)}; allowed is [B, S, N, 3, D] then")
        if bias is not None:
            query = site.add("Add", query, _by_head(site, bias, heads))
        lengths, mask = _masks(site, site.input(4), "key_padding_mask", batch, shape[1])
        lengths, mask = _under_causal(site, lengths, mask, query, settings, fill)
        mask, added = _with_bias(site, mask, site.input(5), "attention_bias")
        _refuse(site, {6: "past_key", 7: "past_value"})
        return [site.add(QKV_TO_CONTEXT, query, lengths, mask, added, layout="B S N three D", **settings)]
    query, key, value = _operands(site, query, key, value, bias, heads)
    past_key, past_value = site.input(6), site.input(7)
    # With a past the mask covers past and new keys, a length that only the run knows.
    keys = site.shape(key, "key")[1] if past_key is None else None
    lengths, mask = _masks(site, site.input(4), "key_padding_mask", batch, keys)
    if past_key is not None and lengths is not None:
        raise site.refusal("key_padding_mask holds lengths while there is a past; allowed is a mask [B, keys]")
    lengths, mask = _under_causal(site, lengths, mask, key, settings, fill)
    mask, added = _with_bias(site, mask, site.input(5), "attention_bias")
    wanted = (True, site.wants(1), site.wants(2))
    operands = (query, key, value, mask, added, past_key, past_value, lengths)
    return list(site.add(ATTENTION, *operands, wanted=wanted, **settings))


def rotary_embedding(site: Site) -> Results:
    """RotaryEmbedding with positions `[B, S]` into tables of angles."""
    x, positions = site.needed(0, "input"), site.needed(1, "position_ids")
    cos, sin = site.needed(2, "cos_cache"), site.needed(3, "sin_cache")
    site.integer("is_packed_batching", 0, (0,))
    if site.number("scale", 1.0) != 1.0:
        raise site.refusal("attribute 'scale' is not 1")
    turned, heads = site.integer("rotary_embedding_dim", 0), site.integer("num_heads", 0)
    pairing = "interleaved" if site.integer("interleaved", 0, (0, 1)) else "half"
    if len(site.shape(positions, "position_ids")) != 2:
        raise site.refusal("position_ids hold one offset; allowed are positions [B, S]")
    width = 2 * site.width(cos, "cos_cache")
    if turned not in (0, width):
        raise site.refusal(f"attribute 'rotary_embedding_dim' is {turned}, but the tables turn {width}")
    if len(site.shape(x, "input")) == 4:
        return [site.add(ROTARY, x, cos, sin, positions, layout="B N S D", pairing=pairing)]
    # Without a count of heads all of each head turns, so the tables tell the head size.
    heads = heads or site.width(x, "input") // width
    settings: dict[str, Any] = {"layout": "B S (N D)", "pairing": pairing, "num_heads": heads}
    return [site.add(ROTARY, x, cos, sin, positions, **settings)]


def _settings(site: Site, heads: int) -> tuple[dict[str, Any], float]:
    """The attributes that both operators of ours share, and the filter value."""
    causal = site.integer("unidirectional", 0, (0, 1))
    fill = site.number("mask_filter_value", -10000.0)
    if fill > _LARGEST_FILTER:
        raise site.refusal(f"attribute 'mask_filter_value' is {fill}; allowed is {_LARGEST_FILTER} or lower")
    settings = {
        "num_heads": heads,
        "scale": site.number("scale", 0.0),
        "kind": "causal" if causal else "full",
        "empty_row": "as_unmasked",
    }
    return settings, fill


def _refuse(site: Site, inputs: dict[int, str]) -> None:
    present = [name for index, name in inputs.items() if site.input(index) is not None]
    if present:
        raise site.refusal(f"input {' and '.join(present)} is given")


def _masks(
    site: Site, mask: ir.Value | None, what: str, batch: AnyDim, keys: AnyDim
) -> tuple[ir.Value | None, ir.Value | None]:
    """Valid counts `[B]`, or a boolean mask `[B, Skv]` or `[B, 1, S, Skv]`; at most one of the two."""
    if mask is None:
        return None, None
    shape = site.shape(mask, what)
    if len(shape) == 1:
        if not same(shape[0], batch):
            raise site.refusal(f"{what} has shape {text(shape)}; of one axis, allowed are valid counts [{batch}]")
        return mask, None
    if len(shape) not in (2, 3):
        raise site.refusal(f"{what} has shape {text(shape)}; allowed are [B], [B, keys] and [B, S, keys]")
    if keys is not None and isinstance(shape[-1], int) and isinstance(keys, int) and shape[-1] != keys:
        raise site.refusal(f"{what} has shape {text(shape)}, but there are {keys} keys")
    keep = site.add("Cast", mask, to=_BOOL)
    return None, keep if len(shape) == 2 else site.along("Unsqueeze", keep, [1])


def _with_bias(
    site: Site, mask: ir.Value | None, bias: ir.Value | None, what: str
) -> tuple[ir.Value | None, ir.Value | None]:
    """Mask and bias operands: an additive tensor alone may be a mask too, which broadcasts freely."""
    if bias is None or len(site.shape(bias, what)) == 4:
        return (bias, None) if mask is None else (mask, bias)
    raise site.refusal(f"{what} has shape {text(site.shape(bias, what))}; allowed is [B or 1, N or 1, S, keys]")


def _under_causal(
    site: Site,
    lengths: ir.Value | None,
    mask: ir.Value | None,
    keys: ir.Value,
    settings: dict[str, Any],
    fill: float,
) -> tuple[ir.Value | None, ir.Value | None]:
    """Masks as they are, or, where attention is causal too, the numbers that ONNX Runtime adds.

    There the two differ: a query whose earlier keys are all masked still attends to these, and not to later ones.
    """
    if settings["kind"] != "causal" or (lengths is None and mask is None):
        return lengths, mask
    keep = mask if mask is not None else _from_lengths(site, lengths, keys)
    nothing = site.constant(torch.tensor(0.0, dtype=site.dtype(keys)), "nothing")
    filled = site.constant(torch.tensor(fill, dtype=site.dtype(keys)), "fill")
    return None, site.add("Where", keep, nothing, filled)


def _from_lengths(site: Site, lengths: ir.Value | None, keys: ir.Value) -> ir.Value:
    """True where a key's place (axis 1 of `keys`) is below the valid count, `[B, Skv]`."""
    assert lengths is not None
    count = site.add("Gather", site.add("Shape", keys), site.constant(torch.tensor(1), "one"), axis=0)
    zero, step = site.constant(torch.tensor(0), "zero"), site.constant(torch.tensor(1), "step")
    places = site.add("Range", zero, count, step)
    columns = site.along("Unsqueeze", site.add("Cast", lengths, to=_INT64), [1])
    result: ir.Value = site.add("Less", places, columns)
    return result


def _by_head(site: Site, bias: ir.Value, heads: int) -> ir.Value:
    """The bias `[3*N*D]` of Q, K and V in the order of a packed projection, `[N, 3, D]`."""
    held = site.weight(bias, "bias")
    return site.constant(held.view(3, heads, -1).transpose(0, 1).contiguous(), "bias_by_head")


def _operands(
    site: Site, query: ir.Value, key: ir.Value, value: ir.Value | None, bias: ir.Value | None, heads: int
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Query, key and value `[B, S, N*D]`, with their parts of the bias added."""
    if value is None:
        packed = site.shape(key, "key")
        if len(packed) != 5:
            raise site.refusal(f"there is no value, and key has shape {text(packed)}; allowed is [B, L, N, 2, D] then")
        key, value = site.add("Split", key, site.numbers([1, 1], "halves"), wanted=(True, True), axis=3)
        rows = site.numbers([0, 0, -1], "rows")
        key, value = site.add("Reshape", key, rows), site.add("Reshape", value, rows)
    for name, operand in (("query", query), ("key", key), ("value", value)):
        if len(site.shape(operand, name)) != 3:
            raise site.refusal(
                f"{name} has shape {text(site.shape(operand, name))}; allowed is [B, length, {heads} * head size]"
            )
    width = site.width(query, "query")
    if heads < 1 or width % heads:
        raise site.refusal(f"attribute 'num_heads' is {heads}; allowed is a divisor of {width}, the width of the query")
    if bias is None:
        return query, key, value
    held = site.weight(bias, "bias")
    parts = held.split([width, width, held.numel() - 2 * width])
    if int(held.count_nonzero()) == 0:
        return query, key, value
    added = []
    for name, operand, part in zip(("query", "key", "value"), (query, key, value), parts, strict=True):
        added.append(site.add("Add", operand, site.constant(part.contiguous(), f"{name}_bias")))
    return added[0], added[1], added[2]
