"""Finds the OpenMP runtime that torch runs on, so that the kernel library shares its threads.

Torch's CPU kernels enter their pool through `GOMP_parallel` (libgomp, or LLVM's runtime, which offers the same name).
Starting a second pool beside it would make two sets of spinning threads fight for the cores.
"""

import ctypes
import sys
from dataclasses import dataclass
from pathlib import Path

_SYMBOLS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads", "omp_in_parallel")


@dataclass(frozen=True)
class OpenMP:
    """The runtime at `path` and the addresses of its four functions, in the order of `qx_set_openmp`."""

    path: str
    addresses: tuple[int, ...]


def _candidates() -> list[str]:
    """Paths of loaded libraries that look like an OpenMP runtime, torch's own first."""
    import torch

    home = str(Path(torch.__file__).parent)
    if sys.platform.startswith("linux"):
        found: dict[str, None] = {}
        with open("/proc/self/maps") as maps:
            for line in maps:
                path = line.rstrip("\n").partition("/")[2]
                name = path.rpartition("/")[2]
                if name.startswith(("libgomp", "libiomp5", "libomp")):
                    found["/" + path] = None
        return sorted(found, key=lambda p: not p.startswith(home))
    return [str(p) for p in sorted(Path(home, "lib").glob("lib*omp*"))]


def find() -> OpenMP | None:
    """The runtime that torch has loaded, or None when none of the loaded ones offers all four functions."""
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
            addresses = tuple(ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in _SYMBOLS)
        except (OSError, AttributeError):
            continue
        if all(addresses):
            return OpenMP(path, addresses)
    return None
