"""Device code of GroupNorm.

Layout: x, y `[B, C, spatial]` contiguous, so a group of channels is `size` numbers in a row; weight, bias `[C]`.
Statistics in float32, merged piece by piece as Chan et al. do; 64-bit addresses. A group that fits one piece is read
once, a larger one twice (the second time from the cache, where it fits).
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def norm_group(
    x, weight, bias, y, size, spatial, channels_per_group, num_groups, epsilon,
    BLOCK: tl.constexpr, FITS: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program normalises one group of one image."""
    group = tl.program_id(0)
    start = group.to(tl.int64) * size
    first_channel = (group % num_groups) * channels_per_group
    step = tl.arange(0, BLOCK)
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    if FITS:
        inside = step < size
        v = tl.load(x + start + step, inside, 0.0).to(tl.float32)
        v = tl.where(inside, v - tl.sum(v, 0) / size, 0.0)
        scale = tl.rsqrt(tl.sum(v * v, 0) / size + epsilon)
        channel = first_channel + step // spatial
        z = v * scale * tl.load(weight + channel, inside, 0.0).to(tl.float32)
        z += tl.load(bias + channel, inside, 0.0).to(tl.float32)
        tl.store(y + start + step, z.to(y.dtype.element_ty), inside)
    else:
        mean = 0.0
        moment = 0.0
        for first in range(0, size, BLOCK):
            inside = first + step < size
            v = tl.load(x + start + first + step, inside, 0.0).to(tl.float32)
            count = tl.minimum(size - first, BLOCK).to(tl.float32)
            middle = tl.sum(v, 0) / count
            v = tl.where(inside, v - middle, 0.0)
            apart = middle - mean
            moment += tl.sum(v * v, 0) + apart * apart * (first * count / (first + count))
            mean += apart * (count / (first + count))
        scale = tl.rsqrt(moment / size + epsilon)
        for first in range(0, size, BLOCK):
            inside = first + step < size
            v = tl.load(x + start + first + step, inside, 0.0).to(tl.float32)
            channel = first_channel + (first + step) // spatial
            z = (v - mean) * scale * tl.load(weight + channel, inside, 0.0).to(tl.float32)
            z += tl.load(bias + channel, inside, 0.0).to(tl.float32)
            tl.store(y + start + first + step, z.to(y.dtype.element_ty), inside)
