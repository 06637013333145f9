"""Times attention of the generation phase over caches on one GPU, results checked against float32 first.

Usage: PYTHONPATH=src python3 bench/gpu_decode.py [--output FILE] [--search] [--peers] [--cases WORD ...]

Bytes are those of the keys and values that are read; they come from memory: where one cache is small, several take
turns. Times are medians of CUDA graph replays, taken in ROUNDS turns of all kernels of a case, since the same launch
takes some 10 % longer at one moment than at another. `--search` times the kernel with every tile: `tile_for` holds the
best.
`--peers` adds torch's scaled_dot_product_attention over a contiguous copy of the cache and, where it is installed,
FlashInfer over the pages.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from qontext.benchmark.gpu_replay import copy_rate, replayed
from qontext.benchmark.machine import machine
from qontext.dtypes import from_torch, relative_rms
from qontext.ops.gpt_attention import gpu_decode
from qontext.ops.gpt_attention.gpu_decode import Decode, Tile
from qontext.ops.gpt_attention.gpu_places import Places
from qontext.ops.gpu_facts import gpu_facts

SETS_BYTES = 192 << 20  # caches that take turns hold at least so much: several times the second-level cache
MOST_SETS = 24
ROUNDS = 5
Run = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """`batch` sequences of `tokens` tokens (the new ones among them) in pages of `page` tokens (0: contiguous)."""

    batch: int
    tokens: int
    heads: int = 32
    kv_heads: int = 8
    size: int = 128
    queries: int = 1
    page: int = 16
    cache: torch.dtype = torch.bfloat16
    dtype: torch.dtype = torch.bfloat16

    @property
    def name(self) -> str:
        kind = str(self.cache).removeprefix("torch.")
        pages = f"pages of {self.page}" if self.page else "contiguous"
        return (
            f"B {self.batch} x {self.tokens}, {self.heads}/{self.kv_heads} heads of {self.size}, "
            f"{self.queries} queries, {kind}, {pages}"
        )

    @property
    def bytes(self) -> int:
        return 2 * self.batch * self.tokens * self.kv_heads * self.size * self.cache.itemsize


CASES = (
    Case(64, 2048),
    Case(64, 2048, page=0),
    Case(64, 2048, page=64),
    Case(64, 2048, queries=8),
    Case(64, 2048, cache=torch.float8_e4m3fn),
    Case(64, 2048, cache=torch.int8),
    Case(64, 2048, heads=8),
    Case(1, 2048),
    Case(1, 131_072),
    Case(16, 8192, heads=64, kv_heads=8),
    Case(64, 2048, heads=16, kv_heads=16, size=64, dtype=torch.float16, cache=torch.float16),
)


class Bench:
    """One case: caches, queries, the float32 result, and what has been measured."""

    def __init__(self, case: Case):
        self.case = case
        sets = max(1, min(MOST_SETS, -(-SETS_BYTES // case.bytes)))
        generator = torch.Generator("cuda").manual_seed(0)
        pages = -(-case.tokens // case.page) if case.page else 1
        shape = (case.batch * pages, 2, case.kv_heads, case.page or case.tokens, case.size)
        self.caches = [self._made(shape, generator) for _ in range(sets)]
        self.query = torch.randn(
            case.batch * case.queries, case.heads, case.size, generator=generator, device="cuda"
        ).to(case.dtype)
        self.table = None
        if case.page:
            order = torch.randperm(case.batch * pages, generator=torch.Generator().manual_seed(0))
            self.table = order.view(case.batch, pages).int().cuda()
        count = torch.full((case.batch,), case.queries, dtype=torch.int32, device="cuda")
        self.places = Places(case.batch, case.queries, None, count, case.tokens - count, None, self.table)
        self.scale = torch.full((1,), 0.02 if case.cache == torch.int8 else 1.0, device="cuda")
        self.want = self._reference()
        self.rows: list[dict[str, Any]] = []
        self.untimed: list[tuple[dict[str, Any], list[Run]]] = []

    def _made(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        if self.case.cache == torch.int8:
            return torch.randint(-128, 128, shape, generator=generator, device="cuda", dtype=torch.int8)
        return torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16).to(self.case.cache)

    def contiguous(self, cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values `[B, Nkv, L, D]` of a cache."""
        case = self.case
        if self.table is None:
            return cache[:, 0], cache[:, 1]
        whole = cache[self.table.long()].movedim(3, 1).movedim(3, 1)  # [B, 2, Nkv, pages, page, D]
        whole = whole.reshape(case.batch, 2, case.kv_heads, -1, case.size)[:, :, :, : case.tokens]
        return whole[:, 0], whole[:, 1]

    def _reference(self) -> torch.Tensor:
        """One sequence after the other in float32."""
        case = self.case
        keys, values = self.contiguous(self.caches[0])
        scale = float(self.scale) if case.cache.itemsize == 1 else 1.0
        done = []
        for b in range(case.batch):
            q = self.query[b * case.queries : (b + 1) * case.queries].float().transpose(0, 1)
            k, v = (x[b].float().repeat_interleave(case.heads // case.kv_heads, 0) * scale for x in (keys, values))
            place = torch.arange(case.tokens - case.queries, case.tokens, device="cuda")
            seen = torch.arange(case.tokens, device="cuda") <= place[:, None]
            logits = (q @ k.transpose(1, 2) / case.size**0.5).masked_fill(~seen, -torch.inf)
            done.append((logits.softmax(-1) @ v).transpose(0, 1))
        return torch.cat(done)

    def measure(self, name: str, runs: list[Run], result: Callable[[], torch.Tensor]) -> None:
        """Checks the first run's result `[T, N, D]`; `finish` times it."""
        row: dict[str, Any] = {"case": self.case.name, "kernel": name}
        try:
            runs[0]()
            row["error"] = relative_rms(result(), self.want)
            if not row["error"] <= from_torch(self.case.dtype).tolerance:
                row["failed"] = f"relative error {row['error']:.2e}"
            else:
                self.untimed.append((row, runs))
        except Exception as error:  # the other rows are still worth having
            row["failed"] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')[:150]}"
        self.rows.append(row)
        if "failed" in row:
            print(f"{self.case.name:72s} {name:28s} {row['failed']}", flush=True)

    def finish(self) -> None:
        """Times the kernels that were right and have no time yet, in turns."""
        for _ in range(ROUNDS):
            for row, runs in self.untimed:
                row.setdefault("rounds_us", []).append(replayed(runs))
        for row, _ in self.untimed:
            row["us"] = statistics.median(row["rounds_us"])
            row["tb_per_s"] = self.case.bytes / row["us"] / 1e6
            print(f"{row['case']:72s} {row['kernel']:28s} {row['us']:9.1f} us {row['tb_per_s']:6.2f} TB/s", flush=True)
        self.untimed.clear()

    def ours(self, name: str = "triton.gpt_attention") -> None:
        case = self.case
        plan = Decode(case.heads // case.kv_heads, case.size**-0.5, case.queries, overlap=True)
        out = torch.full_like(self.query, torch.nan)
        scale = self.scale if case.cache.itemsize == 1 else None

        def run(cache: torch.Tensor) -> None:
            gpu_decode.decode(plan, self.query, cache, self.places, case.tokens, out, scale, scale)

        self.measure(name, [lambda c=c: run(c) for c in self.caches], lambda: out)

    def search(self) -> None:
        """Every tile; for few sequences every way of sharing them out too. Each is timed while it is in force."""
        self.finish()
        tile_for, least, each = gpu_decode.tile_for, gpu_decode._LEAST_TOKENS, gpu_decode._PROGRAMS_EACH
        tiles = [Tile(n, warps, stages) for n in (32, 64, 128) for warps in (4, 8) for stages in (2, 3, 4, 5)]
        few = self.case.batch * self.case.kv_heads < 132
        sharing = [(n, m) for n in (64, 128, 256) for m in (1, 2, 3, 4)] if few else [(least, each)]
        if few:
            tiles = [tile_for(max(16, self.case.size), 16, self.case.cache.itemsize), Tile(32, 4, 4), Tile(64, 4, 3)]
        try:
            for tile in tiles:
                for tokens, programs in sharing:
                    gpu_decode.tile_for = lambda *numbers, tile=tile: tile  # type: ignore[assignment]
                    gpu_decode._LEAST_TOKENS, gpu_decode._PROGRAMS_EACH = tokens, programs
                    self.ours(f"{tile}, shares of {tokens}, {programs} programs each")
                    self.finish()
        finally:
            gpu_decode.tile_for, gpu_decode._LEAST_TOKENS, gpu_decode._PROGRAMS_EACH = tile_for, least, each

    def peers(self) -> None:
        case = self.case
        if case.cache.itemsize == 1:
            return
        both = [tuple(x.contiguous() for x in self.contiguous(c)) for c in self.caches]
        q = self.query.view(case.batch, case.queries, case.heads, case.size).transpose(1, 2).contiguous()
        place = torch.arange(case.tokens - case.queries, case.tokens, device="cuda")
        mask = None if case.queries == 1 else torch.arange(case.tokens, device="cuda") <= place[:, None]

        def run(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=case.heads != case.kv_heads)

        self.measure(
            "torch sdpa, contiguous",
            [lambda k=k, v=v: run(k, v) for k, v in both],
            lambda: run(*both[0]).transpose(1, 2).flatten(0, 1),
        )
        if case.page and case.queries == 1:
            self._flashinfer()

    def _flashinfer(self) -> None:
        try:
            from flashinfer import BatchDecodeWithPagedKVCacheWrapper
        except ImportError:
            return
        case = self.case
        assert self.table is not None
        space = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
        wrapper = BatchDecodeWithPagedKVCacheWrapper(space, "HND", use_tensor_cores=True)
        pages = self.table.shape[1]
        bounds = torch.arange(case.batch + 1, dtype=torch.int32, device="cuda") * pages
        last = torch.full((case.batch,), case.tokens - (pages - 1) * case.page, dtype=torch.int32, device="cuda")
        wrapper.plan(
            bounds, self.table.flatten(), last, case.heads, case.kv_heads, case.size, case.page,
            q_data_type=case.dtype, kv_data_type=case.cache,
        )  # fmt: skip
        self.measure(
            "flashinfer",
            [lambda c=c: wrapper.run(self.query, c) for c in self.caches],
            lambda: wrapper.run(self.query, self.caches[0]),
        )


def compile_for(case: Case) -> None:
    """One run on zeros, so that kernels are compiled for a case."""
    pages = -(-case.tokens // case.page) if case.page else 1
    cache = torch.zeros(
        case.batch * pages, 2, case.kv_heads, case.page or case.tokens, case.size * case.cache.itemsize,
        dtype=torch.uint8, device="cuda",
    ).view(case.cache)  # fmt: skip
    query = torch.zeros(case.batch * case.queries, case.heads, case.size, dtype=case.dtype, device="cuda")
    table = torch.zeros(case.batch, pages, dtype=torch.int32, device="cuda") if case.page else None
    count = torch.full((case.batch,), case.queries, dtype=torch.int32, device="cuda")
    places = Places(case.batch, case.queries, None, count, case.tokens - count, None, table)
    scale = torch.ones(1, device="cuda") if case.cache.itemsize == 1 else None
    plan = Decode(case.heads // case.kv_heads, case.size**-0.5, case.queries, overlap=True)
    gpu_decode.decode(plan, query, cache, places, case.tokens, torch.empty_like(query), scale, scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--cases", nargs="+", default=[], help="only cases whose names contain one of these")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    record: dict[str, Any] = {
        "what": "attention of the generation phase on a GPU",
        "machine": {**machine(), "gpu": asdict(gpu_facts())},
        "copy_tb_per_s": copy_rate() / 1e6,
        "rows": [],
    }
    print(f"copy {record['copy_tb_per_s']:.2f} TB/s", flush=True)
    cases = [c for c in CASES if not options.cases or any(word in c.name for word in options.cases)]
    with ThreadPoolExecutor() as pool:  # compiling takes longer than all the rest
        list(pool.map(compile_for, cases))
    torch.cuda.empty_cache()
    for case in cases:
        bench = Bench(case)
        bench.ours()
        if options.search:
            bench.search()
        if options.peers:
            bench.peers()
        bench.finish()
        record["rows"] += bench.rows
        if options.output:
            options.output.write_text(json.dumps(record, indent=1) + "\n")
        del bench
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
