"""FirstTokens on the GPU: one Triton kernel (`gpu_rows_kernel.py`)."""

from collections.abc import Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_launch import may_overlap
from ..gpu_rows import fresh, plain, row_width, rows_support, tile
from ..native_kernel import even


def _bind(call: Call) -> Bound:
    from ..gpu_rows_kernel import first_rows

    width, overlap = row_width(call, 1), may_overlap(call)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, cu_seqlens = inputs
        rows = len(cu_seqlens) - 1
        y = fresh(out, x, (rows, width))
        if rows:
            grid, columns, each = tile(width, rows)
            first_rows[grid](
                plain(x), even(cu_seqlens), plain(y), rows, len(x), width, columns, each, overlap,
                num_warps=4, launch_pdl=overlap,
            )  # fmt: skip
        return y

    return run


KERNELS = (Kernel("triton.first_tokens", "cuda", lambda call: rows_support(call, 1), _bind, writes_out=True),)
