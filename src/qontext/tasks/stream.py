"""Many batches through one engine without a pause: work for the host is done ahead, results are fetched behind."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from ..engine import Engine
from ..runtime.outputs import Arriving, to_numpy

Piece = TypeVar("Piece")
Done = TypeVar("Done")
Tag = TypeVar("Tag")

_UNDER_WAY = 2  # runs whose results are not fetched yet


def ahead(pieces: Sequence[Piece], work: Callable[[Piece], Done]) -> Iterator[Done]:
    """`work` of every piece, in order; that of the next runs in a thread while the caller uses the present one."""
    if len(pieces) < 2:
        yield from map(work, pieces)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="qontext-ahead") as thread:
        following = thread.submit(work, pieces[0])
        for piece in pieces[1:]:
            present, following = following.result(), thread.submit(work, piece)
            yield present
        yield following.result()


def in_flight(
    engine: Engine, batches: Iterable[tuple[Tag, Mapping[str, np.ndarray]]], names: Sequence[str]
) -> Iterator[tuple[Tag, dict[str, np.ndarray]]]:
    """Runs (tag, inputs) pairs and gives (tag, outputs by name) in the same order.

    On a GPU the next batch is made and launched while the device still computes, and results are copied behind the
    runs; on the host every run is done before the next one is made.
    """
    place = engine.compiled.programs["encode"].device.torch
    under_way: deque[tuple[Tag, Arriving]] = deque()
    for tag, inputs in batches:
        outputs = engine.run(inputs, output_device=place)
        under_way.append((tag, Arriving({name: outputs[name] for name in names})))
        while len(under_way) >= _UNDER_WAY or (under_way and place.type == "cpu"):
            yield _fetched(under_way.popleft())
    yield from map(_fetched, under_way)


def _fetched(run: tuple[Any, Arriving]) -> tuple[Any, dict[str, np.ndarray]]:
    tag, arriving = run
    return tag, {name: to_numpy(tensor) for name, tensor in arriving.wait().items()}
