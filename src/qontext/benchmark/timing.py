"""Timing rivals fairly on few cores."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timed:
    """Seconds of one rival over all its timed calls; `spread` is the range of the round medians over the median."""

    median: float
    best: float
    runs: int
    spread: float


def time_in_blocks(
    rivals: Mapping[str, Callable[[], object]],
    seconds: float = 2.0,
    rounds: int = 3,
    rest: float = 0.1,
    least: int = 2,
) -> dict[str, Timed]:
    """Times rivals in rotated blocks: in every round each gets a rest, an untimed call, then timed calls.

    Alternating call by call would be wrong on few cores: the thread pools of different runtimes go on spinning after
    a call and take the cores from the next one. Rotating the order spreads slow drift of the machine over all.

    Args:
        rivals: name -> call.
        seconds: timed seconds a rival and round.
        least: timed calls a rival and round, however long they take.
    """
    names = list(rivals)
    blocks: dict[str, list[list[float]]] = {n: [] for n in names}
    for call in rivals.values():
        call()
    for turn in range(rounds):
        shift = turn * max(1, len(names) // rounds) % len(names)
        for name in names[shift:] + names[:shift]:
            call = rivals[name]
            time.sleep(rest)
            call()
            times: list[float] = []
            start = time.perf_counter()
            while len(times) < least or (time.perf_counter() - start < seconds and len(times) < 500):
                before = time.perf_counter()
                call()
                times.append(time.perf_counter() - before)
            blocks[name].append(times)
    result = {}
    for name, rounds_of in blocks.items():
        everything = sorted(t for block in rounds_of for t in block)
        medians = [statistics.median(block) for block in rounds_of]
        middle = statistics.median(everything)
        result[name] = Timed(middle, everything[0], len(everything), (max(medians) - min(medians)) / middle)
    return result
