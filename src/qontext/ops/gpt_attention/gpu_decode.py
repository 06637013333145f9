"""Launching the generation phase on a GPU (`gpu_decode_kernel.py`): how the tokens of a sequence are shared out."""

import functools
from dataclasses import dataclass

import torch

from ..gpu_launch import blocks, power_of_2
from .gpu_places import Places

_LEAST_ROWS = 16  # what the matrix unit takes at least
_MOST_ROWS = 128
_WIDE_ROWS = 64  # wgmma from here on; with it, sums of values read as words came out wrong on an H200 (Triton 3.6)
_LEAST_TOKENS = 128  # of a share: below that joining costs more than it spares
_PROGRAMS_EACH = 2  # programs that a multiprocessor holds at once
_FULL = 0.97  # share of the last round of programs from which more shares are not worth their joining


@dataclass(frozen=True)
class Decode:
    """What does not change from step to step.

    group:   query heads of a key head          most_queries: new tokens of a sequence at most
    scale:   of the logits                      softcap: 0 for none
    window:  keys that a query sees, 0 for all  sinks: first keys that stay visible beside the window
    overlap: whether programs may start while the kernel before ends
    """

    group: int
    scale: float
    most_queries: int = 1
    softcap: float = 0.0
    window: int = 0
    sinks: int = 0
    overlap: bool = False


@dataclass(frozen=True)
class Tile:
    """How a program runs over its tokens: how many at once, with how many warps, how many tiles under way."""

    tokens: int
    warps: int
    stages: int


def decode(
    plan: Decode,
    query: torch.Tensor,
    cache: torch.Tensor,
    places: Places,
    longest: int,
    out: torch.Tensor,
    key_scale: torch.Tensor | None = None,
    value_scale: torch.Tensor | None = None,
    slopes: torch.Tensor | None = None,
) -> None:
    """Causal attention of each sequence's last tokens over all of its tokens in the cache, on the device.

    Nothing is read back, so the launch can stand in a CUDA graph.

    Args:
        query, out: `[T, N, D]`, fp32, fp16 or bf16; rows of `out` that belong to no sequence stay as they are, those of
            padding become zeros.
        cache: `[slots, 2, Nkv, P, D]` or `[pages, 2, Nkv, page, D]`; floats, int8 or float8_e4m3. The new tokens are in
            it already.
        longest: tokens of a sequence at most, the new ones among them; it decides how sequences are shared out and
            nothing else, so a bound will do.
        key_scale, value_scale: float32 `[1]` or `[Nkv]` of a quantised cache. slopes: `[N]`.
    """
    from .gpu_decode_kernel import decode_tokens, join_shares

    batch, kv_heads, size = places.batch, cache.shape[2], query.shape[2]
    page = 0 if places.table is None else cache.shape[3]
    width = max(16, power_of_2(size))
    most_rows = max(_MOST_ROWS if width * query.element_size() <= 512 else _MOST_ROWS // 4, power_of_2(plan.group))
    rows = min(max(_LEAST_ROWS, power_of_2(plan.group * plan.most_queries)), most_rows)
    each = rows // plan.group if plan.most_queries > 1 else 1  # queries of a program
    many = blocks(plan.most_queries, each)
    seen = longest if not plan.window else min(longest, plan.window + each - 1 + plan.sinks)
    shares = shares_for(batch * kv_heads * many, seen, _multiprocessors(query.device))
    sums = levels = None
    if shares > 1:
        sums = query.new_empty(batch * many * kv_heads * shares * rows * size, dtype=torch.float32)
        levels = query.new_empty(batch * many * kv_heads * shares * rows * 2, dtype=torch.float32)
    tile = tile_for(width, rows, cache.element_size(), shares > 1)
    indirection = places.indirection
    words = _words(cache, query.dtype) if rows < _WIDE_ROWS else None
    decode_tokens[(batch * many * kv_heads * shares,)](
        query, cache, words, out, sums, levels, places.first, places.queries,
        places.past, places.slots, places.prefixes, places.table, indirection, key_scale, value_scale, slopes,
        plan.scale, plan.softcap, places.capacity(cache), cache.shape[0], plan.window, plan.sinks,
        query.stride(0), query.stride(1), out.stride(0), out.stride(1), *cache.stride()[:4],
        0 if places.table is None else places.table.stride(0),
        *((0, 0, 1) if indirection is None else (*indirection.stride()[:2], indirection.shape[1])),
        0 if key_scale is None or key_scale.numel() == 1 else 1,
        shares, many, places.each, shares > 1, each, plan.group, kv_heads, size, width, rows, tile.tokens,
        page, bool(plan.window), bool(plan.window), bool(plan.softcap),
        "tf32x3" if query.dtype == torch.float32 else "tf32", plan.overlap,
        num_warps=tile.warps, num_stages=tile.stages, launch_pdl=plan.overlap,
    )  # fmt: skip
    if shares > 1:
        join_shares[(batch * many * kv_heads * each * plan.group,)](
            sums, levels, out, places.first, places.queries, out.stride(0), out.stride(1),
            shares, many, places.each, power_of_2(shares), each, plan.group, kv_heads, size, width, rows, plan.overlap,
            num_warps=4, launch_pdl=plan.overlap,
        )  # fmt: skip


def _words(cache: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """A cache of bytes as words of four, where values can be read so: products in fp16, on a device."""
    if cache.element_size() > 1 or dtype == torch.float32 or not cache.is_cuda:
        return None
    fits = cache.stride(-1) == 1 and not any(n % 4 for n in (*cache.stride()[:4], cache.shape[-1], cache.data_ptr()))
    return cache.view(torch.int32) if fits else None


def shares_for(heads: int, tokens: int, multiprocessors: int) -> int:
    """Into how many shares the tokens of each of `heads` key heads of all sequences are cut.

    The fewest that keep nearly all multiprocessors busy to the end.
    """
    most = max(1, min(tokens // _LEAST_TOKENS, 128))
    room = _PROGRAMS_EACH * multiprocessors
    best, best_use = 1, 0.0
    for shares in range(1, most + 1):
        use = heads * shares / (blocks(heads * shares, room) * room)
        if use >= _FULL:
            return shares
        if use > best_use + 0.02:
            best, best_use = shares, use
    return best


def tile_for(width: int, rows: int, cache_bytes: int, shared: bool = False) -> Tile:
    """What was found best on an H200, as far as shared memory has room; `shared`: sequences are cut into shares."""
    if rows < 64:
        if cache_bytes == 1:
            return Tile(64, 2 if width <= 128 else 4, 4)
        tokens = 128 if width <= 64 and cache_bytes == 2 else 64 if width * cache_bytes <= 512 else 32
        return Tile(tokens, 4, 2 if cache_bytes == 4 else 3 if shared else 4)
    tokens = 64 if width * cache_bytes <= 256 else 32
    return Tile(tokens, 8 if rows * width > 8192 else 4, 3 if width * cache_bytes <= 256 else 2)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
