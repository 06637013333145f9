"""Timing kernels on one GPU: medians of graph replays, in microseconds, and the ceilings of the device."""

import statistics
from collections.abc import Callable

import torch


def events(call: Callable[[], object], repeats: int, warm: int = 3) -> float:
    """Median microseconds of one call between two events of the stream."""
    for _ in range(warm):
        call()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times)


def replayed(calls: list[Callable[[], object]], repeats: int = 8, least_us: float = 300.0) -> float:
    """Median microseconds of one call when all of them, several times over, are replayed from a CUDA graph.

    The calls should differ in their inputs, so that a cache does not stand in for memory.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
        once = events(calls[0], 3)
    torch.cuda.current_stream().wait_stream(side)
    rounds = max(1, round(least_us / max(once, 2.0) / len(calls)))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for call in calls:
                call()
    return events(graph.replay, repeats, warm=2) / (rounds * len(calls))


def copy_rate(bytes_moved: int = 4 << 30) -> float:
    """Bytes a microsecond of a device-to-device copy, read and written both counted."""
    source = torch.randn(bytes_moved // 8, device="cuda")
    target = torch.empty_like(source)
    return bytes_moved / events(lambda: target.copy_(source), 10)


def gemm_rate(dtype: torch.dtype, size: int = 8192) -> float:
    """Operations a microsecond of the vendor's largest product."""
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2.0 * size**3 / replayed([lambda: torch.mm(a, b, out=out)])
