"""Rival kernels against each other on the same operands.

The rivals take turns, so that a busy moment of the machine hits all alike.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from ..errors import QontextError
from ..ops.call import Call, Kernel
from .samples import Size, shape_at

Run = Callable[[], object]
_SLEEP_CYCLES = 300_000  # about 0.15 ms: longer than most launches take on the host
_CYCLES_A_SECOND = 2e9  # of the fastest devices


def bound(kernel: Kernel, call: Call, inputs: Sequence[torch.Tensor | None], size: Size) -> Run:
    """A kernel ready to run on sample inputs. Raises what binding raises, naming the kernel."""
    try:
        run = kernel.bind(call)
    except QontextError as error:
        raise type(error)(f"while timing kernel {kernel.name!r}: {error.message}") from error
    out = None
    if kernel.writes_out:
        place = call.device.torch
        out = [
            None if o is None else torch.empty(shape_at(o, size), dtype=o.type.torch, device=place)
            for o in call.outputs
        ]
    return lambda: run(inputs, out)


def race_on_host(runs: Sequence[tuple[str, Run]], repeats: int) -> dict[str, float]:
    """Least microseconds of every rival: everything that disturbs a measurement adds to it."""
    for _, run in runs:
        run()
        run()
    least = {name: float("inf") for name, _ in runs}
    for _ in range(repeats):
        for name, run in runs:
            start = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - start)
    return {name: seconds * 1e6 for name, seconds in least.items()}


def race_on_gpu(runs: Sequence[tuple[str, Run]], repeats: int) -> tuple[dict[str, float], dict[str, str]]:
    """Median microseconds of every rival with weights and activations out of the cache, as a model leaves them.

    Events of the device stand around each run; before it the second-level cache is overwritten and the device sleeps
    for twice as long as the rival takes on the host, so that it never waits for a launch: in a graph there is none to
    wait for. A rival that fails is out.

    Returns:
        Microseconds by name, and what the others failed with.
    """
    failures = {}
    alive = []
    for name, run in runs:
        try:
            run()
            begin = time.perf_counter()
            run()
            cycles = int(2 * _CYCLES_A_SECOND * (time.perf_counter() - begin))
            alive.append((name, run, max(_SLEEP_CYCLES, cycles)))
        except (torch.OutOfMemoryError, torch.AcceleratorError, QontextError):
            raise
        except Exception as error:  # a compiler says no in many ways
            failures[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    cache = torch.empty(2 * cache_bytes(), dtype=torch.uint8, device="cuda")
    marks: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name, _, _ in alive}
    for _ in range(repeats):
        for name, run, cycles in alive:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            cache.zero_()
            torch.cuda._sleep(cycles)
            start.record()
            run()
            end.record()
            marks[name].append((start, end))
    torch.cuda.synchronize()
    times = {name: statistics.median(a.elapsed_time(b) for a, b in pairs) * 1e3 for name, pairs in marks.items()}
    return times, failures


def cache_bytes() -> int:
    """Of the second-level cache of the current GPU."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return int(getattr(properties, "L2_cache_size", 0)) or 64 << 20
