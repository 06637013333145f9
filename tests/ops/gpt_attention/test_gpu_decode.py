"""The generation phase on a GPU against float64; without one, through Triton's interpreter."""

import pytest
import torch

from qontext.dtypes import from_torch, relative_rms

pytest.importorskip("triton")

from qontext.ops.gpt_attention.gpu_decode import Decode, decode, shares_for
from qontext.ops.gpt_attention.gpu_places import Places

PLACE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if PLACE.type == "cuda" else [])


class Case:
    """Sequences of different lengths in a cache that holds NaN wherever no token lies."""

    def __init__(
        self, past, queries, heads, kv_heads, size, dtype, page=0, capacity=0, window=0, sinks=0, beams=0, seed=0
    ):
        self.generator = torch.Generator().manual_seed(seed)
        self.past, self.queries, self.window, self.sinks = past, queries, window, sinks
        self.group = heads // kv_heads
        self.totals = [p + n for p, n in zip(past, queries, strict=True)]
        capacity = capacity or max(self.totals)
        batch = len(past)
        self.keys = [self.random(t, kv_heads, size).to(dtype) for t in self.totals]
        self.values = [self.random(t, kv_heads, size).to(dtype) for t in self.totals]
        self.query = self.random(sum(queries) + 2, heads, size).to(dtype)  # the last rows belong to nobody
        self.table = None
        if page:
            pages = -(-capacity // page)
            order = torch.randperm(batch * pages + 3, generator=self.generator)[: batch * pages]
            self.table = order.view(batch, pages).int()
            shape = (batch * pages + 3, 2, kv_heads, page, size)
        else:
            shape = (batch, 2, kv_heads, capacity, size)
        self.cache = torch.full(shape, float("nan"), dtype=dtype)
        self.slots = torch.randperm(batch, generator=self.generator) if not beams else torch.arange(batch)
        for r, total in enumerate(self.totals):
            for t in range(total):
                place = t if t < capacity else sinks + (t - sinks) % (capacity - sinks)
                slot = int(self.slots[r])
                where = (slot, place) if self.table is None else (int(self.table[slot, place // page]), place % page)
                self.cache[where[0], 0, :, where[1]] = self.keys[r][t]
                self.cache[where[0], 1, :, where[1]] = self.values[r][t]

    def random(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def run(
        self,
        longest=None,
        shares=None,
        monkeypatch=None,
        indirection=None,
        cache=None,
        scale=0.3,
        prefixes=None,
        **more,
    ):
        kinds = {k: more.pop(k) for k in ("softcap",) if k in more}
        plan = Decode(self.group, scale, max(self.queries), window=self.window, sinks=self.sinks, **kinds)
        first = [sum(self.queries[:r]) for r in range(len(self.queries))]
        numbers = [torch.tensor(x, dtype=torch.int32, device=PLACE) for x in (first, self.queries, self.past)]
        tables = [None if t is None else t.to(PLACE) for t in (self.table, indirection)]
        seen = None if prefixes is None else torch.tensor(prefixes, dtype=torch.int32, device=PLACE)
        places = Places(len(first), 0, *numbers, self.slots.int().to(PLACE), *tables, seen)
        out = torch.full_like(self.query, float("nan"), device=PLACE)
        if shares:
            monkeypatch.setattr("qontext.ops.gpt_attention.gpu_decode.shares_for", lambda *numbers: shares)
        cache = self.cache if cache is None else cache
        decode(plan, self.query.to(PLACE), cache.to(PLACE), places, longest or max(self.totals), out, **more)
        out = out.cpu()
        assert out[sum(self.queries) :].isnan().all()
        return out[: sum(self.queries)]

    def want(self, scale=0.3, slopes=None, softcap=0.0, keys=None, values=None, prefixes=None):
        rows = []
        for r, total in enumerate(self.totals):
            first = sum(self.queries[:r])
            q = self.query[first : first + self.queries[r]].double()
            k, v = ((x or y)[r].double().repeat_interleave(self.group, 1) for x, y in
                    ((keys, self.keys), (values, self.values)))  # fmt: skip
            logits = torch.einsum("snd,tnd->nst", q, k) * scale
            if softcap:
                logits = softcap * torch.tanh(logits / softcap)
            token, place = torch.arange(total), torch.arange(self.past[r], total)[:, None]
            if slopes is not None:
                logits += slopes.double()[:, None, None] * token
            seen = token <= place
            if prefixes is not None:
                seen = seen | (token < prefixes[r])
            if self.window:
                seen &= (token > place - self.window) | (token < self.sinks)
            rows.append(torch.einsum("nst,tnd->snd", logits.masked_fill(~seen, -torch.inf).softmax(-1), v))
        return torch.cat(rows)


def close(got, want, times=1.0):
    assert got.isfinite().all()
    assert relative_rms(got, want) < times * from_torch(got.dtype).tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "page"), [(4, 4, 24, 0), (8, 2, 64, 16), (6, 1, 100, 7), (4, 2, 128, 64)]
)
@pytest.mark.parametrize("queries", [[1, 1, 1], [1, 3, 2]])
def test_sequences_of_different_lengths(dtype, heads, kv_heads, size, page, queries):
    case = Case([0, 37, 200], queries, heads, kv_heads, size, dtype, page)
    close(case.run(), case.want())


@pytest.mark.parametrize("shares", [2, 3, 7])
@pytest.mark.parametrize("page", [0, 16])
def test_shares_of_a_sequence_are_joined(shares, page, monkeypatch):
    case = Case([5, 513, 300], [1, 2, 1], 4, 2, 32, torch.float32, page)
    close(case.run(shares=shares, monkeypatch=monkeypatch), case.want())


@pytest.mark.parametrize("shares", [1, 3])
def test_sixteen_queries(shares, monkeypatch):
    case = Case([100, 3], [16, 9], 4, 1, 64, torch.float16, 16)
    close(case.run(shares=shares, monkeypatch=monkeypatch), case.want())


@pytest.mark.parametrize(("past", "capacity", "sinks"), [([90, 300], 80, 0), ([90, 300], 90, 4), ([3, 20], 400, 2)])
@pytest.mark.parametrize("shares", [1, 2])
def test_windows_over_cyclic_caches(past, capacity, sinks, shares, monkeypatch):
    case = Case(past, [2, 1], 4, 2, 32, torch.float32, capacity=capacity, window=70, sinks=sinks)
    close(case.run(shares=shares, monkeypatch=monkeypatch), case.want())


def test_slopes_and_soft_cap():
    case = Case([77, 150], [1, 2], 6, 3, 40, torch.float32)
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.4, 0.03, 0.01])
    close(case.run(slopes=slopes.to(PLACE)), case.want(slopes=slopes))
    close(case.run(softcap=2.5), case.want(softcap=2.5))


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_int8_caches_are_read_times_their_scales(per_head, dtype):
    case = Case([40, 130], [1, 1], 4, 2, 64, dtype, 16)
    key_scale, value_scale = (torch.rand(2 if per_head else 1, generator=case.generator) * 0.02 + 0.01 for _ in "kv")
    whole = torch.randint(-128, 128, case.cache.shape, generator=case.generator, dtype=torch.int8)

    def tokens(part, scale):
        found = []
        for r, total in enumerate(case.totals):
            at = torch.arange(total)
            pages = case.table[case.slots[r], at // 16].long()
            found.append(whole[pages, part, :, at % 16].double() * scale.double()[:, None])
        return found

    got = case.run(cache=whole, key_scale=key_scale.to(PLACE), value_scale=value_scale.to(PLACE))
    close(got, case.want(keys=tokens(0, key_scale), values=tokens(1, value_scale)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_fp8_caches(dtype):
    case = Case([40, 500], [1, 2], 8, 2, 128, dtype, 16)
    low = case.cache.nan_to_num().to(torch.float8_e4m3fn)
    scale = torch.ones(1, device=PLACE)
    case.keys, case.values = ([x.to(torch.float8_e4m3fn).float() for x in part] for part in (case.keys, case.values))
    close(case.run(cache=low, key_scale=scale, value_scale=scale), case.want())


def test_beams_read_what_their_ancestors_wrote():
    """Two batches of three beams: positions before this step come from the beam that the table names."""
    case = Case([50] * 6, [1] * 6, 4, 2, 32, torch.float32, beams=3)
    indirection = torch.randint(0, 3, (2, 3, 51), generator=case.generator, dtype=torch.int32)
    keys, values = [], []
    for part, found in ((0, keys), (1, values)):
        for slot in range(6):
            read = [slot - slot % 3 + int(b) for b in indirection[slot // 3, slot % 3, :50]] + [slot]
            found.append(torch.stack([case.cache[s, part, :, t] for t, s in enumerate(read)]))
    close(case.run(indirection=indirection), case.want(keys=keys, values=values))


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 4)])
@pytest.mark.parametrize("shares", [1, 2])
def test_many_queries_go_block_by_block(heads, kv_heads, shares, monkeypatch):
    """Prompts in parts: 150 queries a sequence behind what is cached, and few or none beside them."""
    case = Case([70, 0, 33], [150, 40, 1], heads, kv_heads, 32, torch.float32, 16)
    close(case.run(shares=shares, monkeypatch=monkeypatch), case.want())


def test_many_queries_within_a_window():
    case = Case([90, 0], [100, 60], 4, 2, 32, torch.float32, window=30, sinks=3)
    close(case.run(), case.want())


@pytest.mark.parametrize("page", [0, 16])
def test_what_lies_beyond_the_cache_is_left_alone(page):
    """A sequence that says it is longer than the cache, and one whose pages the pool has not, harm no neighbour."""
    case = Case([20, 40, 30], [1, 1, 1], 4, 2, 32, torch.float32, page, capacity=48)
    want = case.want()
    case.past[1] = 10_000
    if page:
        case.table[case.slots[1]] = torch.tensor([9999, -5, 7777], dtype=torch.int32)
    got = case.run(longest=48)
    close(got[[0, 2]], want[[0, 2]])


def test_prefixes_are_seen_by_all():
    case = Case([3, 0, 20], [100, 50, 1], 4, 2, 32, torch.float32, 16)
    prefixes = [60, 50, 7]
    close(case.run(prefixes=prefixes), case.want(prefixes=prefixes))


def test_shares_keep_a_device_busy_and_no_more():
    assert shares_for(512, 2048, 132) == 1
    assert shares_for(8, 2048, 132) == 16
    assert shares_for(8, 131_072, 132) * 8 >= 0.9 * 264
    assert shares_for(8, 100, 132) == 1
