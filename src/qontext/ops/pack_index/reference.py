"""PackIndex in plain torch."""

import torch


def reference(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns (token_index [T], cu_seqlens [B+1], max_seqlen [])."""
    token_index, lengths = [], [0]
    for b, row in enumerate(mask):
        places = (row != 0).nonzero().flatten()
        token_index.append(places + b * mask.shape[1])
        lengths.append(len(places))
    index = torch.cat(token_index) if token_index else torch.zeros(0, dtype=torch.int64)
    return (
        index,
        torch.tensor(lengths, dtype=torch.int32).cumsum(0, dtype=torch.int32),
        torch.tensor(max(lengths)).int(),
    )
