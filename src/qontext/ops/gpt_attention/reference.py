"""GptAttention in plain torch: one sequence after the other, one step after the other."""

from typing import Any

import torch

from .bias import added_bias
from .rotary import rotary_of
from .rows import Rows, cache_of, encoder_is_packed, named, rows_of

Tensor = torch.Tensor


def reference(*inputs: Tensor | None, **attributes: Any) -> tuple[Tensor, Tensor | None]:
    """Context in the shape of qkv with N * D columns, and the cache after this step (a copy).

    Keys and values are attended to as the cache holds them: rounded to its dtype, quantised where it is.
    """
    given = named(inputs)
    qkv = given["qkv"]
    assert qkv is not None
    if given["past"] is not None:
        given["past"] = given["past"].clone()
    heads, kv_heads, size = attributes["num_heads"], attributes["num_kv_heads"], attributes["head_size"]
    rows, cache = rows_of(given, attributes), cache_of(given, attributes)
    if cache is not None:
        cache.check(rows.slots, *rows.written, attributes["window"])
    query, key, value = split(qkv, given["qkv_bias"], heads, kv_heads, size)
    context = qkv.new_zeros(rows.tokens, heads, size)
    cross = cross_keys(given, rows, attributes) if given["encoder_lengths"] is not None else None
    for r in range(len(rows)):
        mine = slice(rows.first[r], rows.first[r] + rows.new[r])
        q, k, v = query[mine], key[mine], value[mine]
        queries = torch.arange(rows.past[r], rows.past[r] + rows.new[r])
        if cross is not None:
            assert rows.encoder is not None
            keys = torch.arange(rows.encoder[r])
            fresh = cross[r]
            if fresh is not None:
                k, v = fresh
                if cache is not None:
                    cache.write(torch.full_like(keys, rows.slots[r]), keys, k, v)
            if cache is not None:
                k, v = cache.read(rows.slots[r], keys, qkv.dtype)
        else:
            q, k = _turned(q, k, queries, attributes)
            keys, k, v = _with_past(rows, r, k, v, queries, cache, attributes, qkv.dtype)
        context[mine] = _attend(given, attributes, rows, r, q, k, v, queries, keys)
    return context.view(*qkv.shape[:-1], heads * size), given["past"]


def split(qkv: Tensor, bias: Tensor | None, heads: int, kv_heads: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [tokens, heads, D] of a fused projection."""
    flat = qkv.reshape(-1, qkv.shape[-1])
    flat = flat if bias is None else flat + bias
    q, k, v = flat.split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
    return q.unflatten(-1, (heads, size)), k.unflatten(-1, (kv_heads, size)), v.unflatten(-1, (kv_heads, size))


def _turned(q: Tensor, k: Tensor, queries: Tensor, attributes: Any) -> tuple[Tensor, Tensor]:
    rotary = rotary_of(attributes)
    if rotary is None or not len(queries):
        return q, k
    cos, sin = rotary.angles(queries, int(queries[-1]) + 1)
    return rotary.turned(q, cos, sin), rotary.turned(k, cos, sin)


def _with_past(
    rows: Rows, r: int, k: Tensor, v: Tensor, queries: Tensor, cache: Any, attributes: Any, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, keys and values of what the cache still holds and of the new tokens, which are written to it."""
    if cache is None:
        return queries, k, v
    before = torch.arange(rows.past[r])
    window = attributes["window"]
    if window:
        before = before[(before < cache.sinks) | (before > rows.past[r] - window)]
    past_k, past_v = cache.read(rows.slots[r], before, dtype)
    held_k, held_v = cache.as_held(k, v, dtype)
    total = rows.past[r] + rows.new[r]
    kept = (queries < cache.sinks) | (queries >= total - (cache.capacity - cache.sinks))
    cache.write(torch.full_like(queries, rows.slots[r])[kept], queries[kept], k[kept], v[kept])
    return torch.cat([before, queries]), torch.cat([past_k, held_k]), torch.cat([past_v, held_v])


def cross_keys(given: Any, rows: Rows, attributes: Any) -> list[tuple[Tensor, Tensor] | None]:
    """Keys and values of each sequence's encoder output; None where they stand in the cache already."""
    source = given["cross_qkv"]
    if source is None:
        return [None] * len(rows)
    heads, kv_heads, size = attributes["num_heads"], attributes["num_kv_heads"], attributes["head_size"]
    _, key, value = split(source, given["qkv_bias"], heads, kv_heads, size)
    assert rows.encoder is not None
    found: list[tuple[Tensor, Tensor] | None] = []
    packed = encoder_is_packed(source, rows)
    for r, count in enumerate(rows.encoder):
        first = sum(rows.encoder[:r]) if packed else r * source.shape[1]
        found.append((key[first : first + count], value[first : first + count]))
    return found


def _attend(
    given: Any, attributes: Any, rows: Rows, r: int, q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor
) -> Tensor:
    """softmax(scale Q K^T + biases, masked) V of one sequence: [S, N, D]."""
    groups = attributes["num_heads"] // attributes["num_kv_heads"]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scale = 1 / (attributes["q_scaling"] * attributes["head_size"] ** 0.5)
    logits = torch.einsum("snd,lnd->nsl", q, k) * scale
    if attributes["softcap"]:
        logits = attributes["softcap"] * torch.tanh(logits / attributes["softcap"])
    slopes = given["alibi_slopes"]
    both_ways = attributes["mask_type"] == "padding"
    bias = added_bias(slopes, given["relative_attention_bias"], queries, keys, attributes["max_distance"], both_ways)
    if bias is not None:
        logits = logits + bias
    seen = visible(attributes, queries, keys, None if rows.prefix is None else rows.prefix[r])
    probabilities = torch.softmax(logits.masked_fill(~seen, -torch.inf), -1)
    probabilities = torch.where(seen.any(-1, keepdim=True), probabilities, 0.0)
    return torch.einsum("nsl,lnd->snd", probabilities, v)


def visible(attributes: Any, queries: Tensor, keys: Tensor, prefix: int | None) -> Tensor:
    """Which keys each query sees: bool [S, L], from their positions."""
    q, k = queries[:, None], keys[None, :]
    if attributes["mask_type"] == "padding":
        return torch.ones(len(queries), len(keys), dtype=torch.bool, device=queries.device)
    seen = k <= q
    if prefix is not None:
        seen = seen | (k < prefix)
    if attributes["window"]:
        seen = seen & ((k > q - attributes["window"]) | (k < attributes["sinks"]))
    return seen
