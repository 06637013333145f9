"""Attention of few queries a sequence over a cache that is read where it lies, on the CPU."""

import struct
from collections.abc import Sequence

import torch

from qontext.errors import ArgumentError, DTypeError, ShapeError
from qontext.native.checks import dtype_code, has_shape, on_cpu, same_dtype
from qontext.native.library import functions

_DECODE = struct.Struct("=34q2d")
_CACHED = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3, torch.float8_e4m3fn: 4}
_ONE = torch.ones(1)
# More queries of a sequence than that are better packed for matrix products.
MOST_QUERIES = 16


def decode(
    query: torch.Tensor,
    cache: torch.Tensor,
    *,
    out: torch.Tensor,
    first: Sequence[int],
    queries: Sequence[int],
    past: Sequence[int],
    slots: Sequence[int],
    scale: float,
    table: torch.Tensor | None = None,
    indirection: torch.Tensor | None = None,
    key_scale: torch.Tensor | None = None,
    value_scale: torch.Tensor | None = None,
    slopes: torch.Tensor | None = None,
    softcap: float = 0.0,
    window: int = 0,
    sinks: int = 0,
) -> torch.Tensor:
    """Causal attention of each sequence's last tokens over all of its tokens in a cache; sums and softmax in fp32.

    Sequence r has `queries[r]` rows of `query` `[T, N, D]` from `first[r]` on; `past[r]` tokens stand before them, and
    they themselves are in the cache already. Rows of `out` `[T, N, D]` that belong to no sequence stay as they are.

    Args:
        cache: `[slots, 2, Nkv, P, D]`, or `[pages, 2, Nkv, page, D]` with `table` int `[slots, pages of one]`; float32,
            bfloat16, float16, or int8 and float8_e4m3 that are read times `key_scale` and `value_scale` float32 [1] or
            [Nkv]. The last axis has to be contiguous.
        slots: row of the cache or table of each sequence. Their pages and lengths are not checked here.
        indirection: int `[batch, beams, P]`: of which beam each position before this step is read.
        slopes: ALiBi, `[N]` numbers.
        window, sinks: keys that a query sees (0: all), and first ones that it sees besides. A cache with fewer places
            than tokens is cyclic behind its sinks.
    Raises ShapeError, DTypeError, ArgumentError, DeviceError.
    """
    for name, t in (("query", query), ("cache", cache), ("out", out)):
        on_cpu(name, t)
        if t.stride(-1) != 1 and t.shape[-1] > 1:
            raise ArgumentError(f"{name} has strides {t.stride()}; its last axis must be contiguous")
    if query.dim() != 3 or cache.dim() != 5:
        raise ShapeError(
            f"query has shape {tuple(query.shape)} and cache {tuple(cache.shape)}; wanted [T, heads, head size] and "
            "[slots or pages, 2, heads, tokens, head size]"
        )
    heads, size = query.shape[1:]
    kv_heads, length = cache.shape[2:4]
    has_shape("cache", cache, (cache.shape[0], 2, kv_heads, length, size))
    has_shape("out", out, tuple(query.shape))
    same_dtype("out", out, query.dtype)
    if kv_heads == 0 or heads % kv_heads:
        raise ShapeError(f"{heads} query heads are not a multiple of {kv_heads} key heads")
    if cache.dtype not in _CACHED:
        raise DTypeError(f"cache is {cache.dtype}; allowed are {', '.join(map(str, _CACHED))}")
    table, indirection = _integers(table), _integers(indirection)
    steps = [torch.tensor(list(x), dtype=torch.int32) for x in (first, queries, past, slots)]
    scales = [_scale(s, kv_heads) for s in (key_scale, value_scale)]
    if scales[0].numel() != scales[1].numel():
        scales = [s.expand(kv_heads).contiguous() for s in scales]
    flat = None if slopes is None else slopes.float().reshape(-1).contiguous()
    block = _DECODE.pack(
        query.data_ptr(),
        out.data_ptr(),
        dtype_code("query", query),
        query.stride(0),
        query.stride(1),
        out.stride(0),
        out.stride(1),
        cache.data_ptr(),
        _CACHED[cache.dtype],
        *cache.stride()[:4],
        0 if table is None else table.data_ptr(),
        0 if table is None else table.shape[1],
        length,
        0 if indirection is None else indirection.data_ptr(),
        1 if indirection is None else indirection.shape[1],
        0 if indirection is None else indirection.shape[2],
        len(queries),
        *(s.data_ptr() for s in steps),
        heads,
        kv_heads,
        size,
        length if table is None else length * table.shape[1],
        window,
        sinks,
        scales[0].data_ptr(),
        scales[1].data_ptr(),
        int(scales[0].numel() > 1),
        0 if flat is None else flat.data_ptr(),
        scale,
        softcap,
    )
    if functions().qx_decode(block, torch.get_num_threads()):
        raise MemoryError("no memory for the scratch of attention over a cache")
    return out


def _integers(t: torch.Tensor | None) -> torch.Tensor | None:
    return None if t is None else t.to(torch.int32).contiguous()


def _scale(scale: torch.Tensor | None, kv_heads: int) -> torch.Tensor:
    """One number, or one a head."""
    if scale is None:
        return _ONE
    flat = scale.float().reshape(-1).contiguous()
    if flat.numel() not in (1, kv_heads):
        raise ShapeError(f"a scale of the cache has shape {tuple(scale.shape)}; wanted [1] or [{kv_heads}]")
    return flat
