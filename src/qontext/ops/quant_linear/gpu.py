"""QuantLinear on the GPU: the vendor's products, and ours with all that follows in them; the planner times them."""

from . import gpu_alternating, gpu_persistent, gpu_tiles, gpu_vendor

KERNELS = (*gpu_alternating.KERNELS, *gpu_persistent.KERNELS, *gpu_tiles.KERNELS, *gpu_vendor.KERNELS)
