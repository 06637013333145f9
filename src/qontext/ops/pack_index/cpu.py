"""PackIndex on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch

from ... import native
from ..call import Bound, Call, Kernel
from ..native_kernel import even, native_is_here


def _native_bind(call: Call) -> Bound:
    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        index, cu_seqlens, longest = native.pack_index(even(inputs[0]))
        return index, cu_seqlens, torch.tensor(longest, dtype=torch.int32)

    return run


def _bind(call: Call) -> Bound:
    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        keep = inputs[0] != 0
        lengths = keep.sum(1, dtype=torch.int32)
        cu_seqlens = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        torch.cumsum(lengths, 0, dtype=torch.int32, out=cu_seqlens[1:])
        longest = lengths.max() if len(lengths) else cu_seqlens[0].clone()
        return keep.view(-1).nonzero().view(-1), cu_seqlens, longest

    return run


KERNELS = (
    Kernel("native.pack_index", "cpu", lambda call: native_is_here(), _native_bind),
    Kernel("torch.pack_index", "cpu", lambda call: None, _bind),
)
