"""2:4 sparsity: the pattern, and that pruning keeps the larger half of every four."""

import pytest
import torch

from qontext.errors import ShapeError
from qontext.quant.sparsity import is_sparse, lost, pruned


def test_pruning_keeps_the_two_largest_of_every_four():
    weight = torch.tensor([[1.0, -4, 3, 0, 0, 0, 0, 2], [5, 5, 5, 5, -1, 2, -3, 4]])
    made = pruned(weight)
    assert made[0].tolist() == [0, -4, 3, 0, 0, 0, 0, 2]
    assert (made[1, :4] != 0).sum() == 2 and made[1, 4:].tolist() == [0, 0, -3, 4]
    assert is_sparse(made) and not is_sparse(weight)
    assert torch.equal(pruned(made), made)


def test_what_pruning_takes():
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    share = float(1 - pruned(weight).norm() ** 2 / weight.norm() ** 2)
    assert lost(weight) == pytest.approx(share, rel=1e-5)
    assert 0.05 < lost(weight) < 0.2
    assert lost(pruned(weight)) == pytest.approx(0, abs=1e-12)
    assert lost(torch.zeros(2, 8)) == 0.0


def test_shapes_without_fours():
    for weight in (torch.zeros(3, 6), torch.zeros(8)):
        with pytest.raises(ShapeError, match="K a multiple of 4"):
            pruned(weight)
