"""FirstTokens in plain torch."""

import torch


def reference(x: torch.Tensor, cu_seqlens: torch.Tensor) -> torch.Tensor:
    """The first row of each sequence, zeros for an empty one."""
    y = torch.zeros(len(cu_seqlens) - 1, x.shape[1], dtype=x.dtype, device=x.device)
    for b, (begin, end) in enumerate(zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True)):
        if end > begin:
            y[b] = x[begin]
    return y
