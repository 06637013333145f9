"""Linear on the GPU: the vendor's library, tiles for few rows, persistent programs for many; the planner times them."""

from . import gpu_alternating, gpu_persistent, gpu_tiles, gpu_vendor

KERNELS = (*gpu_vendor.KERNELS, *gpu_tiles.KERNELS, *gpu_persistent.KERNELS, *gpu_alternating.KERNELS)
