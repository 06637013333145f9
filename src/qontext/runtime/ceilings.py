"""What this machine can do at most, measured: the ceilings that shares are counted from."""

import functools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ceilings:
    """Measured limits: bytes/s of a large copy (read + write), operations/s of a large matrix product by dtype."""

    copy_bytes_per_s: float
    flops_per_s: dict[str, float]

    def best_us(self, moved_bytes: float, flops: float, dtype: str) -> float:
        """The least time of a step: the larger of its memory time and its arithmetic time, microseconds."""
        rate = self.flops_per_s.get(dtype) or self.flops_per_s["float32"]
        return max(moved_bytes / self.copy_bytes_per_s, flops / rate) * 1e6


def _rate(call: Callable[[], object], work: float, runs: int = 5) -> float:
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return work / statistics.median(times)


@functools.cache
def cpu_ceilings(threads: int) -> Ceilings:
    """The ceilings of this processor with `threads` threads; takes under a second, once a process.

    The product is prepacked by oneDNN at 1024 x 1024 x 4096, a shape where the vendor library is at its best.
    """
    source = torch.randn(16 << 20)
    target = torch.empty_like(source)
    copy = _rate(lambda: target.copy_(source), 2 * source.numel() * 4)
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = torch.randn(1024, 1024).to(dtype), torch.randn(4096, 1024).to(dtype)
        rates[name] = _rate(lambda a=a, b=b: torch.nn.functional.linear(a, b), 2 * 1024 * 1024 * 4096)  # type: ignore[misc]
    return Ceilings(copy, rates)
