"""Attention of prompts on a GPU, over keys and values that lie side by side.

Prompts of 16-bit floats that begin at their first token go to PyTorch's scaled_dot_product_attention (cuDNN where it
can), which is the fastest there is for them: all at once when they are equally long, one after the other when all are
long. The others go to our kernel for sequences of different lengths.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..attention_common.problem import Problem, Rule
from .cache import Cache
from .rows import Rows

Tensor = torch.Tensor
Attend = Callable[[Problem, Tensor, int, int], None]
MANY = 64  # new tokens of a sequence from which keys and values are worth bringing together
_LONG = 1024  # tokens of a sequence that keep a GPU busy by themselves
_VENDORS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]


@dataclass(frozen=True)
class Prompts:
    """New tokens with the keys and values that they may see.

    query:        `[T, N, D]`           key, value: `[K, Nkv, D]`, rows with any stride
    new, totals:  queries and keys of each sequence; a sequence's last query stands at its last key
    bounds:       int32 `[B + 1]`, twice: where sequences begin among queries and among keys
    prefixes:     int32 `[B]`, keys that all queries see, or None
    """

    query: Tensor
    key: Tensor
    value: Tensor
    new: Sequence[int]
    totals: Sequence[int]
    bounds: tuple[Tensor, Tensor]
    prefixes: Tensor | None = None


def attend(prompts: Prompts, rule: Rule, ours: Attend) -> Tensor:
    """The context `[T, N, D]`, contiguous."""
    query = prompts.query
    lengths = [n for n in prompts.new if n]
    if _suits_vendors(prompts, rule):
        if len(set(lengths)) == 1:
            return _vendor(query, prompts.key, prompts.value, len(lengths), rule.scale)
        if min(lengths) >= _LONG:
            out, start = torch.empty_like(query), 0
            for length in lengths:
                mine = slice(start, start + length)
                out[mine] = _vendor(query[mine], prompts.key[mine], prompts.value[mine], 1, rule.scale)
                start += length
            return out
    out = torch.empty_like(query)
    cu_q, cu_kv = prompts.bounds
    problem = Problem(rule, query, prompts.key, prompts.value, prefix_lengths=prompts.prefixes, cu_q=cu_q, cu_kv=cu_kv)
    ours(problem, out, max(prompts.new), max(prompts.totals))
    return out


def _suits_vendors(prompts: Prompts, rule: Rule) -> bool:
    query = prompts.query
    if rule.kind != "causal" or rule.window_left >= 0 or rule.softcap or list(prompts.new) != list(prompts.totals):
        return False
    return query.is_cuda and query.element_size() == 2 and query.shape[-1] % 8 == 0 and query.shape[-1] <= 128


def _vendor(query: Tensor, key: Tensor, value: Tensor, batch: int, scale: float) -> Tensor:
    """Causal attention of `batch` equally long sequences."""
    heads, size = query.shape[1:]
    q, k, v = (x.unflatten(0, (batch, -1)).transpose(1, 2) for x in (query, key, value))
    with sdpa_kernel(_VENDORS, set_priority=True):
        context = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=heads != key.shape[1])
    return context.transpose(1, 2).reshape(-1, heads, size)


def gathered(
    cache: Cache, table: Tensor | None, rows: Rows, dtype: torch.dtype, place: torch.device
) -> tuple[Tensor, Tensor, list[int]]:
    """Keys and values `[K, Nkv, D]` of all tokens of sequences that bring some, and how many each has.

    Args:
        table: the cache's, on the device; what it says of pages that the pool has not is taken for others.
    """
    if table is not None:
        cache = replace(cache, table=table.clamp(0, cache.tensor.shape[0] - 1))
    totals = [past + new if new else 0 for past, new in zip(rows.past, rows.new, strict=True)]
    parts = [
        cache.read(slot, torch.arange(total, device=place), dtype)
        for slot, total in zip(rows.slots, totals, strict=True)
        if total
    ]
    if len(parts) == 1:
        return *parts[0], totals
    return torch.cat([k for k, _ in parts]), torch.cat([v for _, v in parts]), totals
