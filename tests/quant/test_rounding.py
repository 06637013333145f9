"""Rounding of weights with compensation: what it brings, and what it does where samples say little."""

import pytest
import torch

from qontext.dtypes import relative_rms
from qontext.errors import CalibrationError
from qontext.ops.group_linear.reference import weights_of
from qontext.quant.compensation import LEAST_ROWS, SHRINK, Compensation
from qontext.quant.groups import int4_groups
from qontext.quant.moments import Moments
from qontext.quant.rounding import compensated
from qontext.quant.weights import fp8_rows, int8_rows

COLUMNS, ROWS = 144, 37  # over one block of columns, and no multiple of the inner one


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def alike(rows: int, columns: int = COLUMNS) -> torch.Tensor:
    """x [rows, columns] whose columns go together: few causes, outliers in three columns, a mean beside zero."""
    x = drawn(rows, 12) @ drawn(12, columns) + 0.3 * drawn(rows, columns) + 0.5
    x[:, 5::50] *= 12
    return x


def seen(x: torch.Tensor) -> Moments:
    moments = Moments()
    moments.add(x)
    return moments


def in_int8(weight, moving=None):
    values, scale = int8_rows(weight, moving=moving)
    return values.float() * scale[:, None]


def in_fp8(weight, moving=None):
    values, scale = fp8_rows(weight, moving=moving)
    return values.float() * scale[:, None]


def in_int4(weight, moving=None):
    return weights_of(*int4_groups(weight, 16, moving=moving), torch.float32)


KINDS = {"int8": in_int8, "fp8": in_fp8, "int4": in_int4}


def written_out(weight: torch.Tensor, moments: torch.Tensor, step: float, shrink: float) -> torch.Tensor:
    """The rounding as Frantar et al. give it, in float64: column by column with the inverse of what is left."""
    moments = moments.double() * (1 - shrink) + shrink * torch.diag(moments.double().diagonal())
    order = moments.diagonal().argsort(descending=True, stable=True).tolist()
    weight, rounded = weight.double().clone(), torch.zeros_like(weight, dtype=torch.float64)
    for place, k in enumerate(order):
        left = order[place:]
        inverse = torch.linalg.inv(moments[left][:, left])
        rounded[:, k] = (weight[:, k] / step).round() * step
        lost = (weight[:, k] - rounded[:, k]) / inverse[0, 0]
        weight[:, left] -= lost[:, None] * inverse[0]
    return rounded


@pytest.mark.parametrize("shrink", [0.01, 0.3])
def test_it_is_the_published_rounding_without_its_inverse(shrink):
    x, weight, step = alike(400), drawn(ROWS, COLUMNS), 0.25
    got = compensated(weight, x.T @ x, lambda columns, _: (columns / step).round() * step, shrink)
    want = written_out(weight, x.T @ x, step, shrink)
    # Arithmetic in float32 may put a value beyond the middle of two levels, and what follows in its row differs then.
    assert (got.double() == want).all(1).float().mean() > 0.9
    assert relative_rms((got - weight) @ x.T, (want.float() - weight) @ x.T) < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_loses_less_on_rows_that_were_not_looked_at(kind):
    x, weight = alike(2000), drawn(ROWS, COLUMNS)
    moving = Compensation(seen(x[:1000]))
    got, plain = KINDS[kind](weight, moving), KINDS[kind](weight)
    want = x[1000:] @ weight.T
    before, after = (relative_rms(x[1000:] @ w.T, want) for w in (plain, got))
    assert after < 0.8 * before
    assert relative_rms(got, weight) > relative_rms(plain, weight)  # each value by itself is worse
    assert moving.done.how == "compensated"
    # The rows held back tell the truth about others.
    assert moving.done.nearest == pytest.approx(before, rel=0.1)
    assert moving.done.chosen == pytest.approx(after, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_white_is_rounded_to_the_nearest(kind):
    weight, held = drawn(ROWS, COLUMNS), {}

    def moving(wide, nearest):
        held["q"] = compensated(wide, torch.diag(torch.rand(COLUMNS) + 0.1), nearest, 0.01)
        return held["q"]

    assert torch.equal(KINDS[kind](weight, moving), KINDS[kind](weight))
    torch.testing.assert_close(held["q"], KINDS[kind](weight), rtol=1e-6, atol=1e-6)


def test_levels_are_those_of_the_grid():
    x, weight = alike(1000), drawn(ROWS, COLUMNS)
    values, scale = int8_rows(weight, moving=Compensation(seen(x)))
    assert torch.equal(scale, int8_rows(weight)[1])
    assert values.abs().max() <= 127
    assert (values - int8_rows(weight)[0]).abs().max() > 1  # some go further than to the next level


def test_columns_that_are_never_used_are_rounded_by_themselves():
    x, weight = alike(1000), drawn(ROWS, COLUMNS)
    x[:, 3:20] = 0
    got, plain = in_int8(weight, Compensation(seen(x))), in_int8(weight)
    assert torch.equal(got[:, 3:20], plain[:, 3:20])
    assert not torch.equal(got, plain)


@pytest.mark.parametrize("make", ["constant", "one column", "rank one", "twins"])
def test_moments_without_an_inverse(make):
    x, weight = alike(600), drawn(ROWS, COLUMNS)
    if make == "constant":
        x[:] = 2.5
    elif make == "one column":
        x[:, 1:] = 0
    elif make == "rank one":
        x = drawn(600, 1) @ drawn(1, COLUMNS)
    else:
        x[:, 1::2] = x[:, 0::2]
    moving = Compensation(seen(x))
    got = in_int8(weight, moving)
    assert torch.isfinite(got).all()
    assert relative_rms(x @ got.T, x @ weight.T) <= relative_rms(x @ in_int8(weight).T, x @ weight.T)
    assert moving.done.chosen <= moving.done.nearest


def test_few_tokens_say_nothing():
    weight, moving = drawn(ROWS, COLUMNS), Compensation(seen(alike(LEAST_ROWS // 2)))
    assert torch.equal(in_int8(weight, moving), in_int8(weight))
    assert (
        moving.done.how
        == f"to the nearest: the samples hold {LEAST_ROWS * 7 // 16} tokens for it, at least 128 are wanted"
    )
    assert moving.done.nearest is None
    moving = Compensation(Moments())
    assert torch.equal(in_int8(weight, moving), in_int8(weight))
    assert "0 tokens" in moving.done.how


def test_zeros_and_numbers_whose_squares_overflow_say_nothing():
    weight = drawn(ROWS, COLUMNS)
    for x, said in ((torch.zeros(400, COLUMNS), "is zero"), (alike(400) * 1e20, "beyond float32")):
        moving = Compensation(seen(x))
        assert torch.equal(in_int8(weight, moving), in_int8(weight))
        assert said in moving.done.how


def test_where_nothing_is_gained_values_stay_the_nearest():
    x, weight = drawn(160, COLUMNS), drawn(ROWS, COLUMNS)  # white, and too few rows to see it
    moving = Compensation(seen(x))
    got = in_int8(weight, moving)
    assert torch.equal(got, in_int8(weight))
    assert moving.done.how.startswith("to the nearest: compensated, its error would be")
    assert moving.done.nearest == moving.done.chosen


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_data_that_is_not_finite_is_refused(bad):
    x = alike(10)
    x[3, 4] = bad
    with pytest.raises(CalibrationError, match="layer 'up' reads NaN or infinity"):
        Moments().add(x, "up")


def test_smoothed_moments_are_those_of_smoothed_rows():
    x, factors = alike(300), torch.rand(COLUMNS) + 0.5
    one, other = seen(x).divided(factors), seen(x / factors)
    torch.testing.assert_close(one.sums, other.sums, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(one.apart, other.apart)
    assert one.rows == other.rows and one.rows + len(one.apart) == 300


def test_layers_of_one_weight_count_together():
    x = alike(500)
    both = Moments.together([seen(x[:200]), seen(x[200:])])
    assert both.rows + both.apart_rows == 500
    torch.testing.assert_close(both.sums + both.apart.T @ both.apart, x.T @ x, rtol=1e-4, atol=1e-1)
    assert SHRINK < 1
