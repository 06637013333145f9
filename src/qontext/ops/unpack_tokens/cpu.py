"""UnpackTokens on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel


def _bind(call: Call) -> Bound:
    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, token_index, mask = inputs
        padded = x.new_zeros((*mask.shape, *x.shape[1:])) if out is None else out[0].zero_()
        padded.view(mask.numel(), *x.shape[1:]).index_copy_(0, token_index, x)
        return padded

    return run


KERNELS = (Kernel("torch.unpack_tokens", "cpu", lambda call: None, _bind, writes_out=True),)
