"""Sizes rounded up for graphs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qontext.runtime.buckets import LARGEST_ROUNDED, Bucket, bucket_of, power_of_two, round_length, round_tokens


@given(st.integers(1, 300_000))
def test_tokens_are_rounded_up_by_little(count):
    rounded = round_tokens(count)
    assert count <= rounded <= max(count + 31, count * 17 / 16)
    assert round_tokens(rounded) == rounded


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_rounding_keeps_the_order(a, b):
    low, high = sorted((a, b))
    for function in (round_tokens, round_length, power_of_two):
        assert low <= function(low) <= function(high)


def test_few_buckets_serve_all_sizes():
    assert len({round_tokens(n) for n in range(1, LARGEST_ROUNDED + 1)}) < 120
    assert [round_length(n) for n in (1, 64, 65, 128, 129, 384, 385, 512, 513)] == [
        64, 64, 128, 128, 256, 384, 512, 512, 1024,
    ]  # fmt: skip
    assert [power_of_two(n) for n in (1, 2, 3, 128, 129)] == [1, 2, 4, 128, 256]


@pytest.mark.parametrize(
    ("sizes", "bucket"),
    [
        ((128, 1, 128), Bucket(128, 1, 128)),
        ((16384, 128, 128), Bucket(16384, 128, 128)),
        ((12288, 32, 384), Bucket(12288, 32, 384)),
        ((1000, 7, 200), Bucket(1024, 8, 256)),
        ((45312, 256, 290), None),  # large and not exact: rounding would cost more than launching
        ((49152, 256, 192), Bucket(49152, 256, 256)),
        ((0, 3, 0), None),
    ],
)
def test_buckets(sizes, bucket):
    assert bucket_of(*sizes) == bucket
