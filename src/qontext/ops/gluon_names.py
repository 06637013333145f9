"""Names of Gluon's functions, which are others in Triton 3.6 than in later versions; for device code alone."""

# mypy: ignore-errors

from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import tma


def _one_of(place, *names):
    return next(getattr(place, name) for name in names if hasattr(place, name))


thread_barrier = _one_of(gl, "thread_barrier", "barrier")
copy_in = _one_of(async_copy, "async_load", "async_copy_global_to_shared")
load_tile = _one_of(tma, "async_load", "async_copy_global_to_shared")
store_tile = _one_of(tma, "async_store", "async_copy_shared_to_global")
