"""Weights of four bits in groups: packing, engines, errors by size of group."""

import pytest
import torch

import qontext as qx
from qontext.dtypes import relative_rms
from qontext.errors import ArgumentError
from qontext.ops.group_linear.op import OP as GROUP_LINEAR
from qontext.ops.group_linear.reference import halves_of, weights_of
from qontext.quant.groups import int4_groups
from qontext.quant.mode import QuantMode

# Relative RMS error of a weight of normal numbers by size of group: sixteen levels over two to three deviations.
ERRORS = {32: (0.06, 0.085), 64: (0.075, 0.1), 128: (0.085, 0.115)}


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_two_values_a_byte_the_first_in_the_low_half():
    packed = torch.tensor([[0x21, 0xF0]], dtype=torch.uint8)
    assert halves_of(packed).tolist() == [[1, 2, 0, 15]]
    scale, zero = torch.tensor([[0.5, 2.0]]), torch.tensor([[1, 8]], dtype=torch.uint8)
    assert weights_of(packed, scale, zero, torch.float32).tolist() == [[0.0, 0.5, -16.0, 14.0]]


@pytest.mark.parametrize("group", ERRORS)
def test_errors_grow_with_the_group(group):
    weight = normal(96, 512)
    packed, scale, zero = int4_groups(weight, group)
    assert packed.shape == (96, 256) and scale.shape == zero.shape == (96, 512 // group)
    low, high = ERRORS[group]
    assert low < relative_rms(weights_of(packed, scale, zero, torch.float32), weight) < high


def test_weights_on_sixteen_levels_come_back_exactly():
    levels = torch.randint(0, 16, (7, 64), generator=torch.Generator().manual_seed(0)).float()
    levels[:, 0::32], levels[:, 1::32] = 0, 15
    weight = (levels - 5) * 0.25
    packed, scale, zero = int4_groups(weight, 32)
    torch.testing.assert_close(weights_of(packed, scale, zero, torch.float32), weight)


def test_groups_of_zeros_and_outliers_that_are_cut():
    weight = normal(4, 64)
    weight[0] = 0
    weight[1, :32] = 3.0
    held = weights_of(*int4_groups(weight, 32), torch.float32)
    assert torch.equal(held[0], weight[0])
    torch.testing.assert_close(held[1, :32], weight[1, :32])
    with pytest.raises(ArgumentError, match="weight 'w' holds 1 values that are NaN or infinite"):
        int4_groups(weight.index_fill(1, torch.tensor([3]), torch.nan)[:1], 32, "w")


def test_operator_refuses_what_does_not_fit():
    x, weight = torch.zeros(3, 64), torch.zeros(5, 32, dtype=torch.uint8)
    scale, zero = torch.ones(5, 2), torch.zeros(5, 2, dtype=torch.uint8)
    assert GROUP_LINEAR(x, weight, scale, zero).shape == (3, 5)
    with pytest.raises(qx.errors.ShapeError, match=r"'weight' has shape \[5, 32\], it needs \[M, 66/2\]"):
        GROUP_LINEAR(torch.zeros(3, 66), weight, scale, zero)
    with pytest.raises(qx.errors.ShapeError, match="64 columns are no 3 groups of an even size"):
        GROUP_LINEAR(x, weight, torch.ones(5, 3), torch.zeros(5, 3, dtype=torch.uint8))


def test_modes():
    assert QuantMode.use_weight_only(use_int4_weights=True, per_group=True).weight_bits == 4
    assert QuantMode.use_weight_only(use_int4_weights=True).is_weight_only
