"""Ranges of fixed tensors by each method, and the histogram that they are made of."""

import pytest
import torch

from qontext.calibration.histogram import Histogram
from qontext.calibration.methods import METHODS
from qontext.quant.recipe import StaticScale


def seen(*tensors):
    histogram = Histogram()
    for tensor in tensors:
        histogram.add(tensor)
    return histogram


@pytest.fixture(scope="module")
def bell():
    """A normal distribution with one value far out on each side."""
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    values[7], values[8] = 40.0, -20.0
    return values


def test_min_max_holds_all(bell):
    assert METHODS["min-max"](seen(bell), 99.99) == (-20.0, 40.0)


def test_percentile_leaves_half_of_the_rest_at_each_end(bell):
    low, high = METHODS["percentile"](seen(bell), 99.99)
    step = 2 * 40.0 / 8192
    assert abs(high - bell.quantile(0.99995)) < 2 * step
    assert abs(low - bell.quantile(0.00005)) < 2 * step
    assert METHODS["percentile"](seen(bell), 100.0) == (-20.0, 40.0)


def test_mse_makes_the_least_error_of_the_ranges_it_tries(bell):
    def error(limits):
        scale = (limits[1] - limits[0]) / 255
        back = ((bell.clamp(*limits) - limits[0]) / scale).round() * scale + limits[0]
        return float((back - bell).square().mean())

    found = METHODS["mse"](seen(bell), 0)
    assert error(found) < 0.9 * error((-20.0, 40.0))
    for factor in (0.8, 1.25):
        cut = found[1] * factor
        assert error(found) <= error((max(-20.0, -cut), min(40.0, cut))) * 1.02


def test_entropy_cuts_what_is_far_out_and_keeps_a_uniform_distribution(bell):
    low, high = METHODS["entropy"](seen(bell), 0)
    assert high < 20 and low > -20 and high > 3
    flat = torch.rand(100_000, generator=torch.Generator().manual_seed(1)) * 2 - 1
    low, high = METHODS["entropy"](seen(flat), 0)
    assert high > 0.95 and low < -0.95


def test_a_histogram_grows_with_its_data_and_loses_nothing():
    parts = [torch.tensor([0.1, -0.2, 0.0]), torch.tensor([5.0]), torch.tensor([-300.0, 299.0])]
    whole = seen(*parts)
    assert whole.total == 6
    assert (whole.low, whole.high) == (-300.0, 299.0)
    middle = whole.centres
    assert float(whole.counts[middle.abs() < 1].sum()) == 3
    again = seen(torch.cat(parts))
    assert again.total == 6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [[0.0], [0.0] * 9, [3.0], [-2.5] * 100, [1e-40]], ids=str)
def test_constants_and_single_values_have_a_scale(method, values):
    tensor = torch.tensor(values)
    scale = StaticScale.of_range(*METHODS[method](seen(tensor), 99.99), "test")
    assert 0 < scale.scale < float("inf")
    assert 0 <= scale.zero <= 255
    byte = (tensor / scale.scale).round().add(scale.zero).clamp(0, 255)
    back = (byte - scale.zero) * scale.scale
    torch.testing.assert_close(back, tensor, atol=1e-30, rtol=2 / 255)
