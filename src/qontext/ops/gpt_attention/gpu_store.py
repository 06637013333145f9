"""Launching what puts new tokens in place on a GPU (`gpu_store_kernel.py`)."""

import torch

from ..gpu_launch import blocks, power_of_2
from .gpu_places import Angles, Places

# Numbers of a program: few tokens are spread over many programs, of many each program takes more.
_NUMBERS, _MANY_NUMBERS, _MANY_TOKENS = 1024, 2048, 512


def store(
    qkv: torch.Tensor,
    query: torch.Tensor,
    places: Places,
    kv_heads: int,
    bias: torch.Tensor | None = None,
    angles: Angles | None = None,
    cache: torch.Tensor | None = None,
    key_scale: torch.Tensor | None = None,
    value_scale: torch.Tensor | None = None,
    cyclic: bool = False,
    sinks: int = 0,
    keys: torch.Tensor | None = None,
    values: torch.Tensor | None = None,
    overlap: bool = False,
) -> None:
    """Adds the bias, turns queries and keys, writes queries to `query` and keys and values to the cache.

    Tokens that find no place (lengths beyond the cache, numbers of pages that it has not) are not written.

    Args:
        qkv: `[T, (N + 2 Nkv) D]`, rows contiguous. query: `[T, N, D]` contiguous, of the same dtype; rows of padding
            stay as they are.
        cache: `[slots, 2, Nkv, P, D]` or `[pages, 2, Nkv, page, D]`: floats, int8 or float8_e4m3; None writes queries.
        key_scale, value_scale: float32 `[1]` or `[Nkv]`: a cache of 8 bits holds x * scale.
        cyclic, sinks: places are used again, but for the first ones.
        keys, values: `[T, Nkv, D]`, contiguous, as query: filled beside the cache. Values need keys, both a cache.
    """
    from .gpu_store_kernel import store_tokens

    count, heads, size = query.shape
    width = power_of_2(size)
    block = max(1, (_NUMBERS if count < _MANY_TOKENS else _MANY_NUMBERS) // width)
    page = 0 if places.table is None or cache is None else cache.shape[3]
    store_tokens[(count, blocks(heads + 2 * kv_heads if cache is not None else heads, block))](
        qkv, bias, angles and angles.cos, angles and angles.sin, places.first, places.queries, places.past,
        places.slots, places.table, cache, key_scale, value_scale, query, keys, values, places.batch,
        *((0, 0) if cache is None else (places.capacity(cache), cache.shape[0])), sinks, qkv.stride(0),
        query.stride(0), *((0, 0, 0, 0) if cache is None else cache.stride()[:4]),
        0 if places.table is None else places.table.stride(0),
        0 if key_scale is None or key_scale.numel() == 1 else 1,
        places.each, power_of_2(places.batch) if not places.each else 1, heads, kv_heads, size, width,
        angles.cos.shape[-1] if angles else 0, bool(angles and angles.half), bool(angles and angles.by_token), page,
        cyclic, block, overlap,
        num_warps=4, launch_pdl=overlap,
    )  # fmt: skip
