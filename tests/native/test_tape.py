"""Calls that are noted and made again."""

import ctypes
import struct
import threading
import time

from qontext.native.library import functions
from qontext.native.tape import Noted, Tape, recording

_KERNEL = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)


def kernel(seen: list[tuple[int, int]], failing: int = -1):
    """A kernel that notes the number in its block and the threads; it fails with status 3 at one number."""

    def call(block: int, threads: int) -> int:
        number = ctypes.cast(block, ctypes.POINTER(ctypes.c_int64))[0]
        seen.append((number, threads))
        return 3 if number == failing else 0

    return _KERNEL(call)


def block(number: int) -> ctypes.Array:
    return ctypes.create_string_buffer(struct.pack("=2q", number, -1), 16)


def address(function) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value


def test_calls_are_made_again_in_order():
    seen: list[tuple[int, int]] = []
    function = kernel(seen)
    calls = [(address(function), struct.pack("=2q", n, -1), n + 10) for n in range(5)]
    tape = Tape(functions().qx_replay, calls)
    assert tape.play() is None and tape.play() is None
    assert seen == [(n, n + 10) for n in range(5)] * 2
    laps: list[float] = []
    start = time.perf_counter()
    assert tape.play(laps) is None
    assert len(laps) == 5 and min(laps) > 0 and sum(laps) <= time.perf_counter() - start


def test_the_first_that_fails_ends_it():
    seen: list[tuple[int, int]] = []
    function = kernel(seen, failing=2)
    calls = [(address(function), struct.pack("=2q", n, -1), 1) for n in range(5)]
    assert Tape(functions().qx_replay, calls).play() == (2, 3)
    assert [n for n, _ in seen] == [0, 1, 2]


def test_only_the_thread_that_records_is_noted():
    seen: list[tuple[int, int]] = []
    function = Noted(kernel(seen))
    blocks = [block(n) for n in range(3)]
    with recording() as calls:
        function(blocks[0], 1)
        other = threading.Thread(target=function, args=(blocks[1], 1))
        other.start()
        other.join()
    function(blocks[2], 1)
    assert [n for n, _ in seen] == [0, 1, 2]
    assert [b for _, b, _ in calls] == [blocks[0]]
