"""Searches tile shapes of the Triton kernels: what the tables in `ops/*/gpu*.py` were chosen by.

Usage: python bench/gpu_search.py [--only norm finish tile early persistent alternating] [--seconds 80]
                                  [--workers 14] [--output FILE]

The variants are compiled by worker processes beforehand (into Triton's own cache). Every variant is compared with the
product or norm in float32 before it is timed; one that is wrong or cannot be launched is counted, not timed.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from qontext.benchmark.gpu_replay import replayed
from qontext.dtypes import by_name, relative_rms
from qontext.ops.gpu_activation_kernel import finish
from qontext.ops.gpu_launch import blocks, power_of_2
from qontext.ops.gpu_norm_kernel import norm_rows
from qontext.ops.linear.gpu_alternating import maps_of
from qontext.ops.linear.gpu_early import weight_map
from qontext.ops.linear.gpu_early_kernel import linear_early
from qontext.ops.linear.gpu_hopper_kernel import linear_alternating
from qontext.ops.linear.gpu_kernel import linear_persistent, linear_tile

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--only", nargs="+", default=["norm", "finish", "tile", "early", "persistent", "alternating"])
parser.add_argument("--seconds", type=float, default=80.0, help="stop starting new variants after this long")
parser.add_argument("--workers", type=int, default=14)
parser.add_argument("--output", default="")
parser.add_argument("--part", type=int, default=-1, help="compile every workers-th variant and leave")
arguments = parser.parse_args()

HALF = torch.float16
HANGING_S = 8.0
FROM_MEMORY = 128 << 20  # bytes of weights in turn, twice what the second-level cache holds
FEW_ROWS = (
    (128, 2304, 768), (128, 768, 768), (128, 3072, 768), (128, 768, 3072), (128, 1024, 4096), (384, 768, 768),
    (384, 3072, 768), (384, 768, 3072),
)  # fmt: skip
# Rows and columns of a tile, depth of a step, parts that K is left in, stages.
TILES = (
    (64, 64, 128, 1, 3), (64, 64, 64, 1, 5), (64, 32, 128, 1, 3), (64, 32, 64, 1, 5), (32, 32, 128, 1, 3),
    (32, 64, 128, 1, 3), (128, 32, 64, 1, 5), (128, 64, 64, 1, 5), (64, 64, 64, 4, 5), (64, 64, 128, 4, 3),
    (64, 32, 128, 4, 3), (64, 32, 64, 2, 5), (128, 64, 64, 6, 5), (128, 32, 64, 4, 5),
)  # fmt: skip
# Rows and columns of a tile, span of K (0: all), buffers for x.
EARLY = (
    (64, 64, 0, 4), (64, 64, 0, 12), (64, 32, 0, 6), (128, 64, 0, 4), (64, 64, 192, 4), (64, 64, 256, 4),
    (64, 64, 384, 6), (64, 64, 512, 4), (64, 128, 256, 4), (64, 128, 384, 6), (64, 128, 512, 4), (128, 128, 192, 3),
    (128, 128, 256, 4),
)  # fmt: skip
WEIGHTS = ((3072, 768), (768, 3072), (4096, 1024), (1024, 4096))
# Rows and columns of a tile, depth, warps, stages, programs a multiprocessor holds (0: one a tile).
SHAPES = (
    (128, 256, 64, 8, 3, 1), (128, 256, 64, 8, 3, 0), (128, 128, 64, 4, 3, 2), (128, 128, 64, 4, 3, 0),
    (128, 128, 64, 8, 4, 1), (256, 128, 64, 8, 3, 1), (128, 128, 64, 8, 5, 0), (128, 64, 64, 4, 5, 0),
    (64, 128, 64, 4, 5, 0), (64, 64, 64, 4, 6, 0), (64, 64, 128, 4, 4, 0), (128, 64, 128, 4, 3, 0),
)  # fmt: skip


@dataclass
class Variant:
    """`launch(kernel, i)` starts the kernel on the i-th set of inputs; `kernel[grid](*args, **options)` shaped."""

    case: str
    name: str
    kernel: Any
    grid: tuple[int, ...]
    args: Callable[[int], tuple[Any, ...]]
    options: dict[str, Any]
    wanted: Callable[[], torch.Tensor]
    result: Callable[[], torch.Tensor]
    sets: int

    def compile(self) -> None:
        self.kernel.warmup(*self.args(0), grid=self.grid, **self.options)

    def run(self, i: int) -> None:
        self.kernel[self.grid](*self.args(i), **self.options)


def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=HALF) * scale


class Product:
    """Inputs of one Linear, its result in float32, and its activation."""

    def __init__(self, rows: int, n: int, k: int):
        self.rows, self.n, self.k = rows, n, k
        self.kind = "gelu_erf" if n == 4 * k else "none"
        self.x, self.bias, self.y = random(rows, k), random(n), torch.empty(rows, n, device="cuda", dtype=HALF)
        self.sets = 2 if rows > 4096 else blocks(FROM_MEMORY, n * k * 2)
        self.weights = [random(n, k, scale=k**-0.5) for _ in range(self.sets)]
        self.case = f"{rows}x{n}x{k} {self.kind}"

    def wanted(self) -> torch.Tensor:
        y = F.linear(self.x.float(), self.weights[0].float(), self.bias.float())
        return F.gelu(y) if self.kind == "gelu_erf" else y


def tile_variants() -> Iterator[Variant]:
    for rows, n, k in FEW_ROWS:
        p = Product(rows, n, k)
        for bm, bn, bk, parts, stages in TILES:
            span = blocks(blocks(k, parts), bk) * bk
            if (parts > 1 and (k < 1024 or p.kind != "none")) or (bm == 32 and rows > 128):
                continue
            y = p.y if parts == 1 else torch.empty(parts, rows, n, device="cuda")
            for lines in (0, power_of_2(blocks(span, 64))):
                yield Variant(
                    p.case, f"{bm}x{bn}x{bk} k{parts} s{stages} lines{lines}", linear_tile,
                    (blocks(rows, bm) * blocks(n, bn), parts),
                    lambda i, p=p, c=(bm, bn, bk, parts, span, lines), y=y: (
                        p.x, p.weights[i], p.bias, None, y, p.rows, blocks(p.rows, c[0]), p.n, p.k, *c, p.kind, True),
                    {"num_warps": 4, "num_stages": stages, "launch_pdl": True},
                    *checked(p, y), p.sets,
                )  # fmt: skip


def early_variants() -> Iterator[Variant]:
    for rows, n, k in FEW_ROWS:
        p = Product(rows, n, k)
        for bm, bn, span, ring in EARLY:
            span = span or blocks(k, 64) * 64
            parts, ring = blocks(k, span), min(ring, span // 64)
            if parts > 12 or (parts > 1 and p.kind != "none") or (span * bn + ring * 64 * bm) * 2 > 220 << 10:
                continue
            y = p.y if parts == 1 else torch.empty(parts, rows, n, device="cuda")
            yield Variant(
                p.case, f"early {bm}x{bn}x{span} r{ring}", linear_early,
                (blocks(rows, bm) * blocks(n, bn), parts),
                lambda i, p=p, c=(bm, bn, span, ring, parts), y=y: (
                    p.x, weight_map(p.weights[i], c[1]), p.bias, y, p.rows, blocks(p.rows, c[0]), p.n, p.k, *c, p.kind,
                    True),
                {"num_warps": bm // 16, "launch_pdl": True}, *checked(p, y), p.sets,
            )  # fmt: skip


def checked(p: "Product", y: torch.Tensor) -> tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]:
    """What is wanted and what was found; parts are added up, and know no bias."""
    if y is p.y:
        return p.wanted, lambda: y
    return lambda: p.wanted() - p.bias.float(), lambda: y.sum(0)


def persistent_variants() -> Iterator[Variant]:
    for (n, k), rows in itertools.product(WEIGHTS, (128, 384, 1024, 4096, 16384)):
        p = Product(rows, n, k)
        for bm, bn, bk, warps, stages, residents in SHAPES:
            tiles = blocks(rows, bm) * blocks(n, bn)
            if tiles < 40 or (min(bm, bn) == 64 and rows > 1024):
                continue
            programs = min(tiles, 132 * residents) if residents else tiles
            yield Variant(
                p.case, f"{bm}x{bn}x{bk} w{warps} s{stages} r{residents}",
                linear_persistent, (programs,),
                lambda i, p=p, c=(bm, bn, bk), g=programs: (
                    TensorDescriptor.from_tensor(p.x, [c[0], c[2]]),
                    TensorDescriptor.from_tensor(p.weights[i], [c[1], c[2]]),
                    p.bias, None, p.y, p.rows, g, p.n, p.k, *c, 8, p.kind, True),
                {"num_warps": warps, "num_stages": stages, "launch_pdl": True}, p.wanted, lambda p=p: p.y, p.sets,
            )  # fmt: skip


def alternating_variants() -> Iterator[Variant]:
    for (n, k), rows in itertools.product(WEIGHTS, (384, 1024, 16384)):
        p = Product(rows, n, k)
        for stages, programs in itertools.product((4, 5), (132, 66)):
            if blocks(rows, 128) * blocks(n, 128) < programs or (programs == 66 and rows > 1024):
                continue
            yield Variant(
                p.case, f"alternating s{stages} p{programs}", linear_alternating, (programs,),
                lambda i, p=p, g=programs, s=stages: (
                    *maps_of(p.x, p.weights[i], p.y), p.bias, None, p.rows, g, p.n, p.k, s, p.kind, True),
                {"num_warps": 4, "launch_pdl": True}, p.wanted, lambda p=p: p.y, p.sets,
            )  # fmt: skip


def norm_variants() -> Iterator[Variant]:
    for rows, width in itertools.product((128, 384, 4096, 16384, 45000), (768, 1024)):
        sets = max(2, min(8, (256 << 20) // (rows * width * 6)))
        x, skip, y = ([random(rows, width) for _ in range(sets)] for _ in range(3))
        w, b, xb = random(width), random(width), random(width)
        for each, warps in ((1, 1), (1, 2), (1, 4), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8)):
            if each > 1 and rows < 1024:
                continue
            yield Variant(
                f"skip_layer_norm {rows}x{width}", f"rows{each} w{warps}", norm_rows, (blocks(rows, each),),
                lambda i, x=x, s=skip, y=y, r=rows, e=each, n=width, v=(xb, w, b): (
                    x[i], s[i], v[0], v[1], v[2], y[i], None, r, 1e-12, n, 1024, e, 1, True, True, True),
                {"num_warps": warps, "launch_pdl": True},
                lambda x=x, s=skip, n=width, v=(xb, w, b): F.layer_norm(
                    x[0].float() + s[0].float() + v[0].float(), (n,), v[1].float(), v[2].float(), 1e-12),
                lambda y=y: y[0], sets,
            )  # fmt: skip


def finish_variants() -> Iterator[Variant]:
    for rows, width in itertools.product((128, 384, 4096, 16384), (3072, 4096)):
        sets = max(2, min(8, (256 << 20) // (rows * width * 4)))
        x, y = ([random(rows, width) for _ in range(sets)] for _ in range(2))
        b = random(width)
        for columns, each, warps in ((1024, 1, 2), (1024, 1, 4), (1024, 2, 4), (1024, 4, 4), (512, 4, 4), (1024, 8, 8)):
            yield Variant(
                f"bias_gelu {rows}x{width}", f"{each}x{columns} w{warps}", finish,
                (blocks(rows, each), width // columns),
                lambda i, x=x, y=y, b=b, r=rows, n=width, c=columns, e=each: (
                    x[i], b, None, y[i], r, n, c, e, "gelu_erf", True),
                {"num_warps": warps, "launch_pdl": True},
                lambda x=x, b=b: F.gelu(x[0].float() + b.float()), lambda y=y: y[0], sets,
            )  # fmt: skip


FAMILIES = {
    "tile": tile_variants,
    "early": early_variants,
    "persistent": persistent_variants,
    "alternating": alternating_variants,
    "norm": norm_variants,
    "finish": finish_variants,
}


def compile_part(part: int) -> None:
    """Compiles this worker's share; what fails is met again, and counted, by the main process."""
    for number, variant in enumerate(v for family in arguments.only for v in FAMILIES[family]()):
        if number % arguments.workers == part:
            try:
                variant.compile()
            except (RuntimeError, triton.TritonError) as error:
                print("cannot compile", variant.case, variant.name, str(error)[:100], file=sys.stderr)


def vendor(p: Product) -> dict[str, float]:
    """Microseconds of the vendor's product with bias, and of the product with a pass of ours behind it."""

    def and_pass(weight: torch.Tensor) -> None:
        torch.mm(p.x, weight.t(), out=p.y)
        finish[(blocks(p.rows, 4), p.n // 1024)](
            p.y, p.bias, None, p.y, p.rows, p.n, 1024, 4, p.kind, True, num_warps=4, launch_pdl=True
        )

    found = {"vendor": replayed([lambda w=w: torch.addmm(p.bias, p.x, w.t(), out=p.y) for w in p.weights])}
    if p.kind != "none":
        found["vendor, pass"] = replayed([lambda w=w: and_pass(w) for w in p.weights])
    return found


def give_up(variant: Variant) -> None:
    """A variant that never ends holds the device: only the end of the process frees it."""
    print("HANGS", variant.case, variant.name, flush=True)
    os._exit(1)


def show(case: str, times: dict[str, float]) -> None:
    ranked = sorted(times.items(), key=lambda item: item[1])
    kept = ranked[:6] + [r for r in ranked[6:] if "vendor" in r[0]]
    print(case, "|", "; ".join(f"{name} {us:.2f}" for name, us in kept), flush=True)


def measure(variant: Variant, wanted: torch.Tensor) -> float:
    """Microseconds of a variant. Raises RuntimeError when its result is wrong."""
    watch = threading.Timer(HANGING_S, give_up, [variant])
    watch.start()
    try:
        variant.result().fill_(float("nan"))
        variant.run(0)
        error = relative_rms(variant.result(), wanted)
        if not error <= by_name("float16").tolerance:
            raise RuntimeError(f"relative error {error}")
        return replayed([lambda i=i: variant.run(i) for i in range(variant.sets)], repeats=5)
    finally:
        watch.cancel()


def main() -> None:
    start = time.perf_counter()
    parts = [
        subprocess.Popen([sys.executable, *sys.argv, "--part", str(i)], stderr=subprocess.DEVNULL)
        for i in range(arguments.workers)
    ]
    for part in parts:
        part.wait()
    print(f"compiled in {time.perf_counter() - start:.0f} s", flush=True)
    found: dict[str, dict[str, float]] = {}
    wrong = 0
    for family in arguments.only:
        case, wanted = "", torch.empty(0)
        for variant in FAMILIES[family]():
            if time.perf_counter() - start > arguments.seconds:
                print("out of time before", variant.case, variant.name)
                break
            if case != variant.case:
                if case:
                    show(case, found[case])
                case, wanted = variant.case, variant.wanted()
                times = found.setdefault(case, {})
                if family in ("tile", "early", "persistent", "alternating"):
                    times |= vendor(Product(*map(int, case.split()[0].split("x"))))
            try:
                times[variant.name] = measure(variant, wanted)
            except (RuntimeError, triton.TritonError) as problem:
                wrong += 1
                print("FAILED", case, variant.name, str(problem)[:100])
        if case:
            show(case, found[case])
    print(f"{wrong} variants failed; {time.perf_counter() - start:.0f} s")
    if arguments.output:
        record = {"device": torch.cuda.get_device_name(), "triton": triton.__version__, "us": found}
        with open(arguments.output, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)


if __name__ == "__main__":
    if arguments.part >= 0:
        compile_part(arguments.part)
    else:
        main()
