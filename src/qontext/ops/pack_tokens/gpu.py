"""PackTokens on the GPU: rows gathered by one Triton kernel (`gpu_rows_kernel.py`).

A place outside the batch gives a row of zeros: a token index may be filled up to a fixed length (see PackIndex).
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import may_overlap
from ..gpu_rows import fresh, plain, row_width, rows_support, tile
from ..native_kernel import even


def _bind(call: Call) -> Bound:
    from ..gpu_rows_kernel import gather_rows

    width, overlap = row_width(call, 2), may_overlap(call)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, token_index = inputs
        rows, batch = len(token_index), x.shape[0] * x.shape[1]
        packed = fresh(out, x, (rows, *x.shape[2:]))
        if rows:
            grid, columns, each = tile(width, rows)
            gather_rows[grid](
                plain(x), even(token_index), plain(packed), rows, batch, width, columns, each, overlap,
                num_warps=4, launch_pdl=overlap,
            )  # fmt: skip
        return packed

    return run


KERNELS = (Kernel("triton.pack_tokens", "cuda", lambda call: rows_support(call, 2), _bind, writes_out=True),)
