"""Attention over a cache as the operator calls it: every code of eight bits, runs of tokens, every instruction set."""

import pytest
import torch

from qontext.dtypes import by_name, relative_rms
from qontext.native.decode import decode


def attend(query, cache, past, table=None, **more):
    """One query a sequence, which is the last token in the cache: [B, N, D]."""
    count = len(query)
    return decode(
        query,
        cache,
        out=torch.full_like(query, float("nan")),
        first=range(count),
        queries=[1] * count,
        past=past,
        slots=range(count),
        scale=query.shape[-1] ** -0.5,
        table=table,
        **more,
    )


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_code_of_eight_bits_is_read_exactly(isas, kind, dtype):
    """With one key the context is its value times the scale: 2, which bfloat16 holds, so bit for bit. NaN is NaN."""
    codes = torch.arange(256, dtype=torch.uint8).view(kind)
    cache = torch.zeros(1, 2, 1, 1, 256).to(kind)
    cache[0, 1, 0, 0] = codes
    want = (codes.float() * 2).to(dtype).expand(3, -1)
    assert int(want[0].isnan().sum()) == (2 if kind == torch.float8_e4m3fn else 0)
    for isa in isas:
        got = attend(torch.ones(1, 3, 256, dtype=dtype), cache, [0], value_scale=torch.tensor([2.0]))
        assert torch.equal(got[0].nan_to_num(1e4), want.nan_to_num(1e4)), isa


def by_hand(query, keys, values):
    """Softmax attention of [N, D] to [L, Nkv, D] in float64."""
    groups = query.shape[0] // keys.shape[1]
    keys, values = (x.double().repeat_interleave(groups, 1) for x in (keys, values))
    scores = torch.einsum("nd,lnd->nl", query.double(), keys) * query.shape[-1] ** -0.5
    return torch.einsum("nl,lnd->nd", torch.softmax(scores, -1), values)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("heads", [(4, 1), (6, 2), (5, 5)], ids=str)
@pytest.mark.parametrize("page", [0, 1, 16, 23, 64])
def test_runs_of_tokens_in_pages_of_any_size(isas, kind, heads, page):
    """Lengths on both sides of a round of keys; a head size that is multiplied in pairs."""
    generator = torch.Generator().manual_seed(0)
    lengths = [1, 15, 16, 17, 32, 33, 63, 130]
    query_heads, kv_heads = heads
    query = torch.randn(len(lengths), query_heads, 64, generator=generator).bfloat16()
    room = 138 if page in (0, 23) else 192 if page == 64 else 144
    length = page or room
    each = room // length
    held = torch.randn(len(lengths) * each, 2, kv_heads, length, 64, generator=generator)
    cache = (held * 25 if kind == torch.int8 else held).to(kind)
    table = torch.randperm(len(cache), generator=generator).view(len(lengths), each).int()
    step = 0.04 if kind == torch.int8 else 1.0
    scales = {} if kind == torch.bfloat16 else {"key_scale": torch.tensor([step]), "value_scale": torch.tensor([step])}
    past = [n - 1 for n in lengths]
    order = torch.arange(len(lengths))[:, None] if page == 0 else table
    want = []
    for r, n in enumerate(lengths):
        mine = (cache[order[r].long()].double() * step).permute(0, 3, 2, 1, 4).flatten(0, 1)  # [room, Nkv, 2, D]
        want.append(by_hand(query[r], mine[:n, :, 0], mine[:n, :, 1]))
    for isa in isas:
        got = attend(query, cache, past, None if page == 0 else table, **scales)
        errors = [relative_rms(g, w) for g, w in zip(got, want, strict=True)]
        assert max(errors) <= by_name("bfloat16").tolerance, isa


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("page", [0, 48, 256])
@pytest.mark.parametrize(("heads", "size"), [((6, 6), 32), ((8, 4), 160), ((40, 2), 64), ((3, 1), 256)], ids=str)
def test_a_long_sequence_is_cut_among_threads(isas, kind, page, heads, size):
    """Few sequences: their keys are cut, and the heads of a page stay together. One thread does the same uncut."""
    generator = torch.Generator().manual_seed(1)
    query_heads, kv_heads = heads
    query = torch.randn(1, query_heads, size, generator=generator).bfloat16()
    length, total = page or 2304, 2303
    held = torch.randn(2304 // length, 2, kv_heads, length, size, generator=generator)
    cache = (held * 25 if kind == torch.int8 else held).to(kind)
    table = torch.randperm(len(cache), generator=generator)[None].int()
    step = 0.04 if kind == torch.int8 else 1.0
    scales = {} if kind == torch.bfloat16 else {"key_scale": torch.tensor([step]), "value_scale": torch.tensor([step])}
    mine = (cache[table[0].long()].double() * step).permute(0, 3, 2, 1, 4).flatten(0, 1)[:total]
    want = by_hand(query[0], mine[:, :, 0], mine[:, :, 1])
    threads = torch.get_num_threads()
    for isa in isas:
        for count in (1, 3):
            torch.set_num_threads(count)
            try:
                got = attend(query, cache, [total - 1], table if page else None, **scales)
            finally:
                torch.set_num_threads(threads)
            assert relative_rms(got[0], want) <= by_name("bfloat16").tolerance, (isa, count)


def test_values_beyond_the_last_token_are_not_read(isas):
    """An odd number of tokens: what lies behind them may be NaN, in a page and in the page after."""
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        cache = torch.full((3, 2, 2, 16, 64), float("nan")).to(dtype)
        table = torch.tensor([[2, 0, 1]], dtype=torch.int32)
        flat = cache[table[0].long()]
        flat[0], flat[1, :, :, :5] = 1, 1
        cache[table[0].long()] = flat
        for isa in isas:
            got = attend(torch.ones(1, 4, 64).bfloat16(), cache, [20], table)
            assert torch.equal(got, torch.ones_like(got)), (isa, dtype)
