"""Rounding of a weight in which later columns make good what earlier ones lost.

y = x W^T. Columns of x go together (their second moments H = X^T X are no diagonal matrix), so a column that is still
to be rounded can take back most of what the rounding of another did to y. With H = R R^T, R upper triangular, and
E = W - Q, the squared error of y is |E R|^2, whose column k is R_kk (E_k + sum over i < k of E_i R_ik / R_kk): so Q_k
is what lies nearest to W_k + sum E_i R_ik / R_kk. This is the rounding of Frantar et al.
(https://arxiv.org/abs/2210.17323) in the form of Chee et al. (https://arxiv.org/abs/2307.13304), which needs one
Cholesky factor and no inverse.
"""

from collections.abc import Callable

import torch

# Gives what a grid holds nearest to a column [M] of a weight, or to several [N, M]; with the numbers of these columns.
Nearest = Callable[[torch.Tensor, int | slice], torch.Tensor]

_BLOCK, _INNER = 128, 16  # columns whose debts are settled in one product: between blocks, and within one


def compensated(weight: torch.Tensor, moments: torch.Tensor, nearest: Nearest, shrink: float) -> torch.Tensor:
    """float32 [M, K], all of it values of the grid: the weight [M, K] rounded column by column.

    Columns with the largest moments come first. A column that x never uses is rounded by itself, and so are all where
    the moments are diagonal.

    Args:
        weight: finite.
        moments: float32 [K, K], sums or means of x_i x_j, on the device of the weight.
        nearest: the grid; its scales are fixed before.
        shrink: over 0 and at most 1: the part by which moments off the diagonal are lowered. Few samples show columns
            as more alike than they are; this also makes any moments positive definite.
    """
    order = moments.diagonal().argsort(descending=True, stable=True)
    feedback = _feedback(moments, order, shrink)
    wide = weight.detach().float().T[order]  # [K, M]: what is touched together lies together
    lost, rounded = torch.empty_like(wide), torch.empty_like(wide)
    columns = order.tolist()
    for start in range(0, len(wide), _BLOCK):
        stop = min(start + _BLOCK, len(wide))
        wanted = torch.addmm(wide[start:stop], feedback[:start, start:stop].T, lost[:start])
        for first in range(start, stop, _INNER):
            last = min(first + _INNER, stop)
            mine = wanted[first - start : last - start]
            mine.addmm_(feedback[start:first, first:last].T, lost[start:first])
            for k in range(first, last):
                target = torch.addmv(mine[k - first], lost[first:k].T, feedback[first:k, k])
                rounded[k] = nearest(target, columns[k])
                torch.sub(wide[k], rounded[k], out=lost[k])
    result = torch.empty_like(rounded)
    result[order] = rounded
    return result.T.contiguous()


def _feedback(moments: torch.Tensor, order: torch.Tensor, shrink: float) -> torch.Tensor:
    """float32 [K, K], in the given order: R_ik / R_kk above the diagonal, with R R^T the shrunk moments."""
    size = moments.diagonal().float()
    usable = size > 0
    root = torch.where(usable, size, torch.ones_like(size)).sqrt()
    alike = moments.float() / root / root[:, None]  # with 1 on the diagonal float32 is enough for the factor
    alike = alike * (1 - shrink)
    alike.diagonal().fill_(1.0)
    alike, root = alike[order][:, order], root[order]
    factor = torch.linalg.cholesky(alike.flip(0, 1)).flip(0, 1)  # upper triangular
    return (factor / factor.diagonal()) * (root[:, None] / root)
