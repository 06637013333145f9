"""PackTokens in plain torch."""

import torch


def reference(x: torch.Tensor, token_index: torch.Tensor) -> torch.Tensor:
    """Rows `token_index` of x seen as [B*S, ...]."""
    return x.flatten(0, 1)[token_index]
