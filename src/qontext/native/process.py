"""The process around the kernels: its allocator and its page faults.

Vendor matmuls return fresh tensors. With glibc's defaults a large one is mapped and unmapped on every call, and the
kernel zeroes each of its pages again: 12,289 page faults for one 4096 x 3072 fp32 result.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_MMAP_THRESHOLD_BYTES = 32 << 20  # the most that glibc takes
_NEVER_BYTES = (1 << 31) - 1  # mallopt takes an int
_TOP_PAD_BYTES = 64 << 20


def steady_allocator() -> bool:
    """Makes glibc keep freed memory: no mmap for large blocks, no trim. False where the C library is not glibc.

    The process keeps its high-water mark of memory from then on.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    settings = (
        (_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES),
        (_MMAP_MAX, 0),  # blocks over that threshold too
        (_TRIM_THRESHOLD, _NEVER_BYTES),
        (_TOP_PAD, _TOP_PAD_BYTES),
    )
    done = [mallopt(option, value) == 1 for option, value in settings]
    return all(done)


def page_faults() -> int:
    """Page faults of this process so far (minor and major); 0 where the platform does not count them."""
    try:
        import resource
    except ImportError:
        return 0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt
