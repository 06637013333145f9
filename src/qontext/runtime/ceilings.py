"""What this machine can do at most, measured: the ceilings that shares are counted from."""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ..native import available
from ..native.linear import bind_linear, multiplies, pack_weight
from ..ops.call import Device
from ..ops.device import current
from ..ops.gpu_launch import FP8_CAPABILITY, capability_of


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
    """Work a second of the quickest run: what else the machine does lowers no ceiling."""
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return work / min(times)


@functools.cache
def cpu_ceilings(threads: int) -> Ceilings:
    """The ceilings of this processor with `threads` threads; takes under a second, once a process.

    The product is that of the faster of the vendor's library and ours, of 1024 x 1024 x 4096, where both do well.
    """
    source = torch.randn(16 << 20)
    target = torch.empty_like(source)
    copy = _rate(lambda: target.copy_(source), 2 * source.numel() * 4)
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = torch.randn(1024, 1024).to(dtype), torch.randn(4096, 1024).to(dtype)
        rates[name] = max(_rate(product, 2.0 * 1024 * 1024 * 4096) for product in _products(a, b))
    return Ceilings(copy, rates)


def _products(a: torch.Tensor, b: torch.Tensor) -> Iterator[Callable[[], object]]:
    """Calls that multiply a `[T, K]` by b `[M, K]`."""
    yield lambda: torch.nn.functional.linear(a, b)
    if available() and multiplies(b.dtype):
        run, out = bind_linear(pack_weight(b), None), a.new_empty(len(a), len(b))
        yield lambda: run(a, None, None, out)


def _device_rate(call: Callable[[], object], work: float, runs: int = 5) -> float:
    """Work a second from events of the GPU."""
    call()
    times = []
    for _ in range(runs):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return work / statistics.median(times)


@functools.cache
def gpu_ceilings(device: Device) -> Ceilings:
    """The ceilings of a GPU: a copy of 512 MiB, and products of three 8192s by the vendor's library on random data."""
    place, side = device.torch, 8192
    with current(device):
        source = torch.empty(1 << 30, dtype=torch.uint8, device=place)
        half = source.numel() // 2
        copy = _device_rate(lambda: source[:half].copy_(source[half:]), 2.0 * half)
        rates = {}
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            a, b = (torch.randn(side, side, device=place).to(dtype) for _ in range(2))
            name = str(dtype).removeprefix("torch.")
            rates[name] = _device_rate(lambda a=a, b=b: torch.mm(a, b), 2.0 * side**3)  # type: ignore[misc]
        if capability_of(device) >= FP8_CAPABILITY:
            one = torch.ones((), device=place)
            x, weight = (torch.randn(side, side, device=place).to(torch.float8_e4m3fn) for _ in range(2))
            product = functools.partial(torch._scaled_mm, x, weight.t(), one, one, out_dtype=torch.float16)
            rates["float8_e4m3"] = _device_rate(product, 2.0 * side**3)
    return Ceilings(copy, rates)


def ceilings_of(device: Device) -> Ceilings:
    """The ceilings of the device that a program was planned for."""
    return cpu_ceilings(torch.get_num_threads()) if device.torch.type == "cpu" else gpu_ceilings(device)
