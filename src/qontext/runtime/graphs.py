"""CUDA graphs of the middle of a program, one for each bucket of sizes."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .landing import LandingPad

Body = Callable[[], list[Any]]
Capture = Callable[[Body], tuple[Callable[[], None], list[Any]]]
MOST_GRAPHS = 128


class CudaCapture:
    """Captures launches on the current GPU; all graphs share one pool of memory, since they never run together.

    Called with a function that launches the kernels and returns the table of values; gives the function that launches
    them again, and the table whose tensors it fills.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, body: Body) -> tuple[Callable[[], None], list[Any]]:
        stream = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                table = body()
        finally:
            torch.cuda.set_stream(stream)  # a capture that failed leaves its own stream behind
        if self._pool is None:
            self._pool = graph.pool()
        return super(torch.cuda.CUDAGraph, graph).replay, table  # without what torch's Python around it costs


@dataclass
class Captured:
    """One graph.

    pad:      static tensors it reads
    launch:   starts it; to be called by `replay` alone
    outputs:  tensors it fills, by slot
    keeps:    memory it refers to
    memory:   addresses of the memory that the next replay overwrites
    seconds:  what capturing took, compilation of kernels included
    """

    pad: LandingPad
    launch: Callable[[], None]
    outputs: Mapping[int, torch.Tensor]
    keeps: list[torch.Tensor]
    memory: set[int]
    seconds: float
    replays: int = 0

    def replay(self) -> None:
        """Launches it on what was last filled into its static tensors."""
        self.launch()
        self.pad.turn()
        self.replays += 1


class Graphs:
    """Graphs by key, the least recently used of which gives way when there are `most`.

    Args:
        capturer: makes what captures; asked again after `clear`, since a pool of memory ends with its last graph.
    Attributes:
        reason: why nothing is captured, "" while it is.
    """

    def __init__(self, capturer: Callable[[], Capture], most: int = MOST_GRAPHS):
        self.reason = ""
        self._capturer = capturer
        self._capture = capturer()
        self._most = most
        self._held: OrderedDict[Any, Captured] = OrderedDict()

    def get(self, key: Any) -> Captured | None:
        """The graph of a key, if there is one."""
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
        return found

    def add(self, key: Any, pad: LandingPad, body: Body, outputs: Sequence[int], arenas: Body) -> Captured:
        """Runs `body` once to compile and allocate, then captures it.

        Args:
            outputs: slots that are read afterwards.
            arenas: gives the memory that the graph refers to, called after the capture.
        """
        start = time.perf_counter()
        body()
        launch, table = self._capture(body)
        pad.begin()
        held = {slot: table[slot] for slot in outputs}
        memory = {t.untyped_storage().data_ptr() for t in (*held.values(), *pad.views.values())}
        captured = Captured(pad, launch, held, arenas(), memory, time.perf_counter() - start)
        if len(self._held) >= self._most:
            _settle()
            self._held.popitem(last=False)
        self._held[key] = captured
        return captured

    def clear(self) -> None:
        """Lets go of all graphs and their memory."""
        _settle()
        self._held.clear()
        self._capture = self._capturer()

    def rows(self) -> list[dict[str, Any]]:
        """What was captured, for reports."""
        return [{"sizes": str(key), "replays": g.replays, "seconds": g.seconds} for key, g in self._held.items()]


def _settle() -> None:
    """Waits for replays under way: what they use is about to be freed."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
