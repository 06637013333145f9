"""2:4 sparsity: of every four weights that follow each other along K at most two are not zero.

Tensor cores multiply such weights at up to twice the rate. Processors have no such instruction: on a CPU a pruned
weight takes exactly as long as a dense one, so no build prunes by itself.
"""

import torch

from ..errors import ShapeError


def _fours(weight: torch.Tensor) -> torch.Tensor:
    if weight.ndim != 2 or weight.shape[1] % 4:
        raise ShapeError(f"weight has shape {tuple(weight.shape)}; 2:4 sparsity wants [M, K] with K a multiple of 4")
    return weight.reshape(weight.shape[0], -1, 4)


def is_sparse(weight: torch.Tensor) -> bool:
    """Whether a weight `[M, K]` meets the pattern. Raises ShapeError for K that is no multiple of 4."""
    return bool(((_fours(weight) != 0).sum(-1) <= 2).all())


def pruned(weight: torch.Tensor) -> torch.Tensor:
    """The weight `[M, K]` with the two smallest magnitudes of every four set to zero. Raises ShapeError as above."""
    fours = _fours(weight)
    kept = fours.abs().topk(2, dim=-1).indices
    mask = torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, kept, True)
    return torch.where(mask, fours, torch.zeros_like(fours)).reshape(weight.shape)


def lost(weight: torch.Tensor) -> float:
    """The part of a weight's squared norm that pruning takes: 0 for a weight that meets the pattern already."""
    whole = weight.double().square().sum()
    return float(1 - pruned(weight).double().square().sum() / whole) if float(whole) else 0.0
