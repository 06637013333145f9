"""Linear on the GPU: the vendor's library, kernels for few rows and for many; the planner times them.

Those that fetch their weights early stand first: no timing of a kernel alone shows what that gains beside another.
"""

from . import gpu_alternating, gpu_early, gpu_persistent, gpu_tiles, gpu_vendor

KERNELS = (
    *gpu_early.KERNELS,
    *gpu_tiles.THIN_KERNELS,
    *gpu_vendor.KERNELS,
    *gpu_tiles.KERNELS,
    *gpu_persistent.KERNELS,
    *gpu_alternating.KERNELS,
)
