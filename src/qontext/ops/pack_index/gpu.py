"""PackIndex on the GPU: two Triton launches that read nothing back (`gpu_kernel.py`).

Two kernels differ in who knows the number of tokens. `triton.pack_index` is not told: it reads back the longest and
the total, the one stop of the device in a run. `triton.pack_index_static` fills tensors of the caller's, who knows
the number, or a bound on it: places of token_index beyond the tokens hold B * S, which PackTokens and UnpackTokens
leave out. It can be captured in a graph when the caller's max_seqlen lies on the device or in pinned memory.
Limit: a batch has fewer than 2^31 positions.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ...graph.dims import product, text
from ..call import Bound, Call, Kernel
from ..gpu_launch import may_overlap, power_of_2, triton_is_here
from ..native_kernel import even

_MOST_SEQUENCES, _LONGEST_BLOCK = 1024, 1024


def _supports(call: Call) -> str | None:
    mask = call.inputs[0]
    assert mask is not None
    places = None if mask.shape is None else product(mask.shape)
    if isinstance(places, int) and places >= 1 << 31:
        return f"the batch {text(mask.shape)} has {places} positions, the kernel takes fewer than 2^31"
    return triton_is_here()


def _number(call: Call) -> Any:
    """The function that launches both kernels: (mask, token_index, cu_seqlens) -> (longest, total) on the device."""
    from ..gpu_rows_kernel import count_rows
    from .gpu_kernel import number_tokens

    overlap = may_overlap(call)

    def run(mask: torch.Tensor, token_index: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
        batch, length = mask.shape
        lengths, summary = torch.empty_like(cu_seqlens), cu_seqlens.new_empty(2)
        if mask.numel() == 0:
            cu_seqlens.zero_()
            token_index.zero_()
            return summary.zero_()
        block = min(power_of_2(length), _LONGEST_BLOCK)
        count_rows[(batch,)](mask, lengths, length, block, overlap, launch_pdl=overlap)
        number_tokens[(batch,)](
            mask, lengths, token_index, cu_seqlens, summary, batch, length, len(token_index),
            min(power_of_2(batch), _MOST_SEQUENCES), block, overlap, launch_pdl=overlap,
        )  # fmt: skip
        return summary

    return run


def _bind(call: Call) -> Bound:
    number = _number(call)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mask = even(inputs[0])
        token_index = mask.new_empty(mask.numel(), dtype=torch.int64)
        cu_seqlens = mask.new_empty(len(mask) + 1, dtype=torch.int32)
        longest, total = number(mask, token_index, cu_seqlens).cpu()
        return token_index[: int(total)], cu_seqlens, longest

    return run


def _static_bind(call: Call) -> Bound:
    number, wanted = _number(call), [call.wants(i) for i in range(3)]

    def run(
        inputs: Sequence[Any], out: Sequence[Any] | None = None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        assert out is not None, "the caller knows how many tokens there are, so it has tensors for them"
        mask = even(inputs[0])
        token_index = out[0] if wanted[0] else mask.new_empty(0, dtype=torch.int64)
        cu_seqlens = out[1] if wanted[1] else mask.new_empty(len(mask) + 1, dtype=torch.int32)
        summary = number(mask, token_index, cu_seqlens)
        if wanted[2]:
            out[2].copy_(summary[0], non_blocking=out[2].is_cuda or out[2].is_pinned())
        return out[0], out[1], out[2]

    return run


KERNELS = (
    Kernel("triton.pack_index", "cuda", _supports, _bind),
    Kernel("triton.pack_index_static", "cuda", _supports, _static_bind, writes_out=True),
)
