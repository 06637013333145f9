"""PackTokens on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel


def _bind(call: Call) -> Bound:
    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        return torch.index_select(inputs[0].flatten(0, 1), 0, inputs[1], out=None if out is None else out[0])

    return run


KERNELS = (Kernel("torch.pack_tokens", "cpu", lambda call: None, _bind, writes_out=True),)
