"""Measures attention of one token a sequence over a cache, beside the bandwidth at which torch.sum reads memory.

Usage: python bench/decode_attention.py [--output FOLDER] [--name SUFFIX] [--rounds N] [--batch B] [--context L]
                                        [--one-thread] [--against LIBRARY]

Every round times torch.sum over as many bytes as the bf16 cache has, then each variant, one after the other; the share
of a variant is its bandwidth over that of the sum in the same round. Bandwidth counts the bytes of keys and values that
are read, as the cache holds them. Other work on the machine is said (load average): shares stand it better than times.
--one-thread takes one thread and counts the time that it ran: on a machine with other work that says how two versions
compare, and --against runs another build of the library (a .so file) in turns with the one that is installed.
"""

import argparse
import ctypes
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from qontext.benchmark.machine import machine
from qontext.native import decode as native_decode
from qontext.native import openmp
from qontext.native.decode import decode
from qontext.native.library import functions

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", default="bench/results")
parser.add_argument("--name", default="", help="suffix of the file name")
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--context", type=int, default=2048)
parser.add_argument("--one-thread", action="store_true")
parser.add_argument("--against", help="another build of libqontext.so")
arguments = parser.parse_args()

HEADS, KV_HEADS, SIZE = 32, 8, 128
CACHES = {"bf16": torch.bfloat16, "int8": torch.int8, "fp8": torch.float8_e4m3fn}
Variant = tuple[Callable[[], object], int]


def variants(batch: int, context: int) -> dict[str, Variant]:
    """Calls by name, with the bytes that each reads."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(batch, HEADS, SIZE, generator=generator).bfloat16()
    found: dict[str, Variant] = {}
    for name, dtype in CACHES.items():
        for page in (0, 16, 64):
            if page == 16 and name != "bf16":
                continue
            length = page or context
            cache = torch.empty(batch * context // length, 2, KV_HEADS, length, SIZE, dtype=dtype)
            for block in cache:
                block.copy_(torch.randn(block.shape, generator=generator))
            table = None
            if page:
                order = torch.randperm(len(cache), generator=generator)
                table = order.view(batch, -1).to(torch.int32)
            scale = torch.ones(1) if name != "bf16" else None

            def call(cache: torch.Tensor = cache, table: torch.Tensor | None = table, scale: object = scale) -> object:
                return decode(
                    query,
                    cache,
                    out=torch.empty_like(query),
                    first=range(batch),
                    queries=[1] * batch,
                    past=[context - 1] * batch,
                    slots=range(batch),
                    scale=SIZE**-0.5,
                    table=table,
                    key_scale=scale,
                    value_scale=scale,
                )

            found[f"{name}, {f'pages of {page}' if page else 'contiguous'}"] = (call, cache.nbytes)
    return found


def seconds(call: Callable[[], object]) -> float:
    clock = time.thread_time if arguments.one_thread else time.perf_counter
    begin = clock()
    call()
    return clock() - begin


def with_library(path: str, call: Callable[[], object]) -> Callable[[], object]:
    """The call with another build of the library."""
    library = ctypes.CDLL(str(Path(path).resolve()))
    library.qx_decode.argtypes = (ctypes.c_char_p, ctypes.c_int64)
    library.qx_set_isa.argtypes = (ctypes.c_int64,)
    library.qx_set_openmp.argtypes = (ctypes.c_void_p,) * 4
    library.qx_set_isa(functions().qx_get_isa())
    if (runtime := openmp.find()) is not None:
        library.qx_set_openmp(*runtime.addresses)

    def other() -> object:
        own = native_decode.functions
        native_decode.functions = lambda: library  # type: ignore[assignment, return-value]
        try:
            return call()
        finally:
            native_decode.functions = own

    return other


def main() -> None:
    if arguments.one_thread:
        torch.set_num_threads(1)
    measured = variants(arguments.batch, arguments.context)
    if arguments.against:
        others = {f"{n} (other)": (with_library(arguments.against, c), count) for n, (c, count) in measured.items()}
        measured = {n: v for pair in zip(measured.items(), others.items(), strict=True) for n, v in pair}
    read = torch.zeros(next(iter(measured.values()))[1] // 4)
    sums: list[float] = []
    times: dict[str, list[float]] = {name: [] for name in measured}
    shares: dict[str, list[float]] = {name: [] for name in measured}
    load = os.getloadavg()[0]
    for turn in range(arguments.rounds + 1):
        best = min(seconds(read.sum) for _ in range(2))
        rates = {name: (call_bytes[1], seconds(call_bytes[0])) for name, call_bytes in measured.items()}
        if turn == 0:
            continue
        sums.append(read.nbytes / best / 1e9)
        for name, (count, taken) in rates.items():
            times[name].append(taken)
            shares[name].append(count / taken / 1e9 / sums[-1])
    rows = [
        {
            "variant": name,
            "milliseconds": round(statistics.median(times[name]) * 1e3, 2),
            "gigabytes_per_second": round(measured[name][1] / statistics.median(times[name]) / 1e9, 1),
            "share_of_sum": round(statistics.median(shares[name]), 3),
            "best_share": round(max(shares[name]), 3),
            "times_faster_than_bf16": round(
                statistics.median(times["bf16, contiguous"]) / statistics.median(times[name]), 2
            ),
        }
        for name in measured
    ]
    result = {
        "machine": machine(),
        "load_average": round(load, 2),
        "one_thread": arguments.one_thread,
        "sizes": {
            "batch": arguments.batch,
            "context": arguments.context,
            "heads": HEADS,
            "kv_heads": KV_HEADS,
            "head_size": SIZE,
        },
        "sum_gigabytes_per_second": round(statistics.median(sums), 1),
        "rounds": arguments.rounds,
        "rows": rows,
    }
    suffix = f"-{arguments.name}" if arguments.name else ""
    path = Path(arguments.output) / f"decode-attention{suffix}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"torch.sum reads at {result['sum_gigabytes_per_second']} GB/s (load average {load:.1f})")
    for row in rows:
        print(
            f"{row['variant']:30} {row['milliseconds']:8.2f} ms {row['gigabytes_per_second']:6.1f} GB/s "
            f"{row['share_of_sum']:6.0%} of the sum"
        )
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
