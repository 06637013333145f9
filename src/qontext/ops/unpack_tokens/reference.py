"""UnpackTokens in plain torch."""

import torch


def reference(x: torch.Tensor, token_index: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Rows of x at their places in [B, S, ...], zeros elsewhere."""
    padded = torch.zeros(mask.numel(), *x.shape[1:], dtype=x.dtype, device=x.device)
    padded[token_index] = x
    return padded.reshape(*mask.shape, *x.shape[1:])
