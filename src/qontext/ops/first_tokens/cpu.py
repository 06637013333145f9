"""FirstTokens on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel


def _bind(call: Call) -> Bound:
    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, cu_seqlens = inputs
        begin = cu_seqlens[:-1]
        place = None if out is None else out[0]
        if len(x) == 0:
            return x.new_zeros(len(begin), x.shape[1]) if place is None else place.zero_()
        y = torch.index_select(x, 0, begin.clamp(max=len(x) - 1), out=place)
        empty = begin == cu_seqlens[1:]
        return y.masked_fill_(empty.unsqueeze(1), 0)

    return run


KERNELS = (Kernel("torch.first_tokens", "cpu", lambda call: None, _bind, writes_out=True),)
