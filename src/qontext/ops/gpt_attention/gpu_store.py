"""Launching what puts new tokens in place on a GPU (`gpu_store_kernel.py`)."""

from dataclasses import dataclass

import torch

from ..gpu_launch import blocks, power_of_2

_NUMBERS = 1024  # of a program: enough for wide accesses, few enough to spread one token over several programs


@dataclass(frozen=True)
class Angles:
    """Rotation of the first 2 * pairs elements of queries and keys.

    cos, sin:  float32, contiguous, a row of `pairs` numbers for each position, or (by_token) for each token
    half:      pairs are (i, i + pairs), else (2i, 2i + 1)
    """

    cos: torch.Tensor
    sin: torch.Tensor
    half: bool
    by_token: bool = False


@dataclass(frozen=True)
class Tokens:
    """New tokens; all on the device, int32 `[T]`.

    positions: in their sequences               slots: rows of the cache or of `table`
    kept:      0 where a later token of the step takes the place, None where none does
    table:     `[slots, pages]`, None for a contiguous cache
    """

    positions: torch.Tensor
    slots: torch.Tensor | None = None
    kept: torch.Tensor | None = None
    table: torch.Tensor | None = None


def store(
    qkv: torch.Tensor,
    query: torch.Tensor,
    tokens: Tokens,
    kv_heads: int,
    bias: torch.Tensor | None = None,
    angles: Angles | None = None,
    cache: torch.Tensor | None = None,
    key_scale: torch.Tensor | None = None,
    value_scale: torch.Tensor | None = None,
    cyclic: bool = False,
    sinks: int = 0,
    overlap: bool = False,
) -> None:
    """Adds the bias, turns queries and keys, writes queries to `query` and keys and values to the cache.

    Args:
        qkv: `[T, (N + 2 Nkv) D]`, rows contiguous. query: `[T, N, D]` contiguous, of the same dtype.
        cache: `[slots, 2, Nkv, P, D]` or `[pages, 2, Nkv, page, D]`: floats, int8 or float8_e4m3; None writes queries.
        key_scale, value_scale: float32 `[1]` or `[Nkv]`: a cache of 8 bits holds x * scale.
        cyclic, sinks: places are used again, but for the first ones.
    """
    from .gpu_store_kernel import store_tokens

    count, heads, size = query.shape
    width = power_of_2(size)
    block = max(1, _NUMBERS // width)
    page = 0 if tokens.table is None or cache is None else cache.shape[3]
    capacity = 0
    if cache is not None:
        capacity = cache.shape[3] * (1 if tokens.table is None else tokens.table.shape[1])
    store_tokens[(count, blocks(heads + 2 * kv_heads if cache is not None else heads, block))](
        qkv, bias, angles and angles.cos, angles and angles.sin, tokens.positions, tokens.slots, tokens.kept,
        tokens.table, cache, key_scale, value_scale, query, capacity, sinks, qkv.stride(0), query.stride(0),
        *((0, 0, 0, 0) if cache is None else cache.stride()[:4]),
        0 if tokens.table is None else tokens.table.stride(0),
        0 if key_scale is None or key_scale.numel() == 1 else 1,
        heads, kv_heads, size, width, angles.cos.shape[-1] if angles else 0, bool(angles and angles.half),
        bool(angles and angles.by_token), page, cyclic, block, overlap,
        num_warps=4, launch_pdl=overlap,
    )  # fmt: skip
