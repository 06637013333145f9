"""Calls of the kernel library, noted while they are made, and made again all at once.

What Python does between two kernels takes several times as long as it seems where weights have just streamed through
the caches. A tape holds the argument blocks of many calls; `Tape.play` is one call.
"""

import ctypes
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

_CALL = struct.Struct("=3q")
_STATUS = 0xFF

# A kernel, its block of arguments, the number of threads.
Call = tuple[int, bytes, int]


class _Recording(threading.local):
    calls: list[Call] | None = None


_recording = _Recording()


class Noted:
    """A function of the library (block of arguments, threads) -> status, noted while its thread records."""

    __slots__ = ("_address", "_function")

    def __init__(self, function: Any):
        self._function: Callable[[bytes, int], int] = function
        self._address = ctypes.cast(function, ctypes.c_void_p).value or 0

    def __call__(self, block: bytes, threads: int) -> int:
        calls = _recording.calls
        if calls is not None:
            calls.append((self._address, block, threads))
        return self._function(block, threads)


@contextmanager
def recording() -> Iterator[list[Call]]:
    """Notes the calls that this thread makes meanwhile."""
    calls: list[Call] = []
    _recording.calls = calls
    try:
        yield calls
    finally:
        _recording.calls = None


class Tape:
    """Calls that can be made again. The memory behind the addresses in their blocks is the caller's to keep."""

    def __init__(self, replay: Any, calls: list[Call]):
        self._replay = replay
        self._blocks = ctypes.create_string_buffer(b"".join(block for _, block, _ in calls))
        place = ctypes.addressof(self._blocks)
        table = b""
        for kernel, block, threads in calls:
            table += _CALL.pack(kernel, place, threads)
            place += len(block)
        self._table = ctypes.create_string_buffer(table)
        self._count = len(calls)

    def play(self, laps: list[float] | None = None) -> tuple[int, int] | None:
        """Makes the calls in order; `laps` gets the seconds of each. Returns the place and the status of the first that
        fails; None when none does."""
        if laps is None:
            failed = self._replay(ctypes.addressof(self._table), self._count, 0)
        else:
            times = (ctypes.c_int64 * (self._count + 1))()
            failed = self._replay(ctypes.addressof(self._table), self._count, ctypes.addressof(times))
            laps += [(after - before) / 1e9 for before, after in pairwise(times)]
        return (failed >> 8, failed & _STATUS) if failed else None
