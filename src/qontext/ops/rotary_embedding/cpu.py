"""RotaryEmbedding on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..kernel_checks import dtypes_are
from .reference import reference


def _torch_supports(call: Call) -> str | None:
    return dtypes_are(call, ("float32", "float16", "bfloat16"))


def _torch_bind(call: Call) -> Bound:
    settings = dict(call.attributes)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, cos, sin, position_ids = inputs
        # Halves are turned in float32: a product and a difference of halves would be rounded three times.
        return reference(x.float(), cos.float(), sin.float(), position_ids, **settings).to(x.dtype)

    return run


KERNELS = (Kernel("torch.rotary_embedding", "cpu", _torch_supports, _torch_bind),)
