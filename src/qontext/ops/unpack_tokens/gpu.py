"""UnpackTokens on the GPU: rows put back, and zeros between them, by one Triton kernel (`gpu_rows_kernel.py`).

The token index has to ascend, as that of PackIndex does. Places outside the batch are left out: an index may be
filled up to a fixed length (see PackIndex).
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import may_overlap
from ..gpu_rows import fresh, plain, row_width, rows_support, tile
from ..native_kernel import even


def _bind(call: Call) -> Bound:
    from ..gpu_rows_kernel import spread_rows

    width, overlap = row_width(call, 1), may_overlap(call)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, token_index, mask = inputs
        rows = mask.numel()
        padded = fresh(out, x, (*mask.shape, *x.shape[1:]))
        if rows:
            grid, columns, each = tile(width, rows)
            spread_rows[grid](
                plain(x), even(token_index), plain(padded), rows, len(x), len(x).bit_length() + 1,
                width, columns, each, overlap, num_warps=4, launch_pdl=overlap,
            )  # fmt: skip
        return padded

    return run


KERNELS = (Kernel("triton.unpack_tokens", "cuda", lambda call: rows_support(call, 1), _bind, writes_out=True),)
