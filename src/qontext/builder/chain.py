"""Small kernels timed as they run in an engine: many in a row in a CUDA graph, each with weights of its own.

Between two events a kernel stands alone. In a graph it may be launched, and fetch its weights, while the one in front
of it ends (programmatic dependent launch); with some microseconds a kernel that decides between rivals.
"""

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..ops.call import Call, Kernel
from .race import Run, bound, cache_bytes
from .samples import Size

SMALL_US = 20.0  # kernels that take longer are told apart by events well enough
_MOST_LINKS = 48
_LEAST_LINKS = 8
_LEAST_US = 200.0  # of a replay, beside which its launch does not count

Operands = tuple[Call, Sequence[torch.Tensor | None]]


def race_in_chains(
    kernels: Sequence[tuple[Kernel, float]],
    call: Call,
    inputs: Sequence[torch.Tensor | None],
    size: Size,
    repeats: int,
) -> dict[str, float]:
    """Median microseconds of every rival in a chain of its own kind.

    Args:
        kernels: with what they take alone, microseconds; all of them have run before.
    Returns:
        Microseconds by name, without rivals that cannot be captured.
    """
    operands = with_own_weights(call, inputs, 2 * cache_bytes())
    chains: dict[str, tuple[torch.cuda.CUDAGraph, list[Run], int]] = {}
    for kernel, alone in kernels:
        runs = [bound(kernel, one, given, size) for one, given in operands]
        rounds = max(1, round(_LEAST_US / (alone * len(runs))))
        graph = _captured(runs, rounds)
        if graph is not None:
            chains[kernel.name] = graph, runs, rounds * len(runs)
    marks: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in chains}
    for _ in range(repeats + 1):
        for name, (graph, _, _) in chains.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            graph.replay()
            end.record()
            marks[name].append((start, end))
    torch.cuda.synchronize()
    return {
        name: statistics.median(a.elapsed_time(b) for a, b in pairs[1:]) * 1e3 / chains[name][2]
        for name, pairs in marks.items()
    }


def with_own_weights(call: Call, inputs: Sequence[torch.Tensor | None], least_bytes: int) -> list[Operands]:
    """The call and its inputs several times, each with copies of all constants, `least_bytes` of them in all: so many
    that no copy is in the cache when its turn comes again, as in an engine with many layers."""
    held = [o is not None and o.constant is not None for o in call.inputs]
    each = sum(t.nbytes for t, constant in zip(inputs, held, strict=True) if constant and t is not None)
    count = min(max(_LEAST_LINKS, -(-least_bytes // max(each, 1))), _MOST_LINKS) if each else _LEAST_LINKS
    made: list[Operands] = []
    for _ in range(count):
        given = [t.clone() if constant and t is not None else t for t, constant in zip(inputs, held, strict=True)]
        operands = tuple(
            replace(o, constant=t) if constant and o is not None else o
            for o, t, constant in zip(call.inputs, given, held, strict=True)
        )
        made.append((replace(call, inputs=operands), given))
    return made


def _captured(runs: Sequence[Run], rounds: int) -> torch.cuda.CUDAGraph | None:
    """A graph of the runs, `rounds` times over, which have to outlive it; None where one cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(side):
        for run in runs:
            run()
        side.synchronize()
        # Not torch.cuda.graph, which lets go of all cached memory each time.
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            for _ in range(rounds):
                for run in runs:
                    run()
            graph.capture_end()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # a kernel that reads something back
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            return None
    return graph
