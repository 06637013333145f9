"""Tensor maps of rows for kernels written in Gluon."""

from typing import Any

import torch


def layout_of(dtype: torch.dtype, block: list[int]) -> Any:
    """How blocks of halves or eight bits lie in shared memory."""
    from triton.experimental.gluon import language as gl

    names = {
        torch.float16: gl.float16,
        torch.bfloat16: gl.bfloat16,
        torch.float8_e4m3fn: gl.float8e4nv,
        torch.int8: gl.int8,
    }
    return gl.NVMMASharedLayout.get_default_for(block, names[dtype])


def map_of(tensor: torch.Tensor, block: list[int]) -> Any:
    """The tensor map of rows that begin on 16 bytes, of halves or eight bits, in blocks of `block`."""
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    return TensorDescriptor.from_tensor(tensor, block, layout_of(tensor.dtype, block))
