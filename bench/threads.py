"""Measures what a second thread costs and brings: small kernels, a busy machine, ways of waiting.

Usage: python bench/threads.py [--output FOLDER] [--name SUFFIX] [--seconds S]

For each way in which OpenMP's workers wait (they spin for some time, then sleep) a fresh process times the activation
kernel on one thread and on all, right after another call (workers still spin) and after a pause (workers sleep), and a
chain of products and kernels as in an encoder layer. Then the same with one other process computing all the time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", default="bench/results")
parser.add_argument("--name", default="", help="suffix of the file name")
parser.add_argument("--seconds", type=float, default=0.15, help="timed seconds a measurement")
parser.add_argument("--measure", action="store_true", help="measure in this process and print JSON")
arguments = parser.parse_args()

WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "short spin": {"GOMP_SPINCOUNT": "10000"},
    "sleep at once": {"OMP_WAIT_POLICY": "passive"},
}
SIZES = (16384, 32768, 65536, 131072, 524288)


def time_of(call: Callable[[], object], pause: float) -> dict[str, float]:
    """Median, 90th percentile and worst of single calls, in microseconds."""
    call()
    times: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < arguments.seconds or len(times) < 10:
        if pause:
            time.sleep(pause)
        else:
            call()
        before = time.perf_counter()
        call()
        times.append((time.perf_counter() - before) * 1e6)
    times.sort()
    return {
        "median": round(statistics.median(times), 1),
        "p90": round(times[len(times) * 9 // 10], 1),
        "worst": round(times[-1], 1),
    }


def measure() -> dict[str, object]:
    import torch

    from qontext.native.bound import bind_activation, bind_norm

    width, threads = 1024, torch.get_num_threads()
    kernels: dict[str, object] = {}
    gelu, norm = bind_activation(width, torch.float32, "gelu"), bind_norm(width, torch.float32, eps=1e-12)
    gamma = torch.ones(width)
    for size in SIZES:
        x = torch.randn(size // width, width)
        out = torch.empty_like(x)
        for kind, call in {
            "gelu": lambda x=x, out=out: gelu(x, None, out),
            "norm": lambda x=x, out=out: norm(x, None, None, gamma, gamma, out, None),
        }.items():
            row = {}
            for count in sorted({1, threads}):
                torch.set_num_threads(count)
                row[f"{count} threads"] = {"hot": time_of(call, 0), "cold": time_of(call, 0.02)}
            kernels[f"{kind} {size}"] = row
    a, b, c = torch.randn(128, 768), torch.randn(768, 3072), torch.randn(3072, 768)
    ffn = bind_activation(3072, torch.float32, "gelu")
    layer_norm, scale = bind_norm(768, torch.float32, eps=1e-12), torch.ones(768)

    def chain() -> None:
        x = a
        for _ in range(4):
            y = x @ b
            ffn(y, None, y)
            x = y @ c
            layer_norm(x, a, None, scale, scale, x, None)

    return {"kernels": kernels, "chain": time_of(chain, 0)}


if arguments.measure:
    print(json.dumps(measure()))
    raise SystemExit

from qontext.benchmark.machine import machine  # noqa: E402

result: dict[str, dict[str, object]] = {}
for busy in (False, True):
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        for way, variables in WAYS.items():
            command = [sys.executable, __file__, "--measure", "--seconds", str(arguments.seconds)]
            done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
            name = f"{'one more process' if busy else 'as it is'}, {way}"
            result[name] = json.loads(done.stdout)
            print(name, result[name]["chain"], flush=True)
    finally:
        if neighbour:
            neighbour.kill()
            neighbour.wait()
folder = Path(arguments.output)
folder.mkdir(parents=True, exist_ok=True)
target = folder / f"threads{arguments.name}.json"
target.write_text(json.dumps({"what": "threads", "machine": machine(), "rows": result}, indent=1) + "\n")
print(target)
