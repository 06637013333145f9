"""Timing rivals on a GPU: latency of single calls, each waited for."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Latency:
    """Milliseconds from the call to the end of its work on the device, over all timed calls."""

    mean: float
    median: float
    p95: float
    p99: float
    runs: int
    spread: float  # range of the medians of the rounds over the median


def time_in_turns(
    rivals: Mapping[str, Callable[[], object]],
    runs: int = 300,
    rounds: int = 3,
    warm_up: int = 20,
    seconds: float = 2.0,
    warm_up_seconds: float = 0.25,
) -> dict[str, Latency]:
    """Times rivals in turns: in every round each makes some untimed calls, then its share of the timed ones.

    Args:
        rivals: name -> call that starts work on the current stream.
        runs: timed calls of each rival in all.
        warm_up, warm_up_seconds: untimed calls before each block, for so long at most.
        seconds: a block ends after this long, however few calls it has made (5 at least).
    """
    names = list(rivals)
    blocks: dict[str, list[list[float]]] = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            call = rivals[name]
            begin = time.perf_counter()
            for _ in range(warm_up):
                call()
                torch.cuda.synchronize()
                if time.perf_counter() - begin > warm_up_seconds:
                    break
            times: list[float] = []
            begin = time.perf_counter()
            while len(times) < -(-runs // rounds) and (len(times) < 5 or time.perf_counter() - begin < seconds):
                start = time.perf_counter()
                call()
                torch.cuda.synchronize()
                times.append((time.perf_counter() - start) * 1e3)
            blocks[name].append(times)
    result = {}
    for name, rounds_of in blocks.items():
        every = sorted(t for block in rounds_of for t in block)
        medians = [statistics.median(block) for block in rounds_of]
        middle = statistics.median(every)
        result[name] = Latency(
            statistics.fmean(every),
            middle,
            every[min(len(every) - 1, int(0.95 * len(every)))],
            every[min(len(every) - 1, int(0.99 * len(every)))],
            len(every),
            (max(medians) - min(medians)) / middle,
        )
    return result
