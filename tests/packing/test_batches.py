"""The batcher outside the graph."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qontext.errors import ArgumentError
from qontext.packing.batches import plan_batches, windows


def test_the_seed_example_runs_110_tokens_not_200():
    (batch,) = plan_batches([10, 100], max_tokens=4096)
    assert batch.tokens == 110
    assert batch.padded_tokens == 200


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(50, 300), st.none() | st.integers(1, 8))
def test_every_sequence_once_and_no_batch_over_the_budget(lengths, budget, most):
    batches = plan_batches(lengths, budget, most)
    assert sorted(i for b in batches for i in b.indices) == list(range(len(lengths)))
    assert all(b.padded_tokens <= budget for b in batches)
    assert all(most is None or len(b.indices) <= most for b in batches)
    assert all(b.lengths == tuple(lengths[i] for i in b.indices) for b in batches)


def test_sorted_batches_waste_less_than_batches_in_order():
    lengths = [5, 100] * 20
    planned = sum(b.padded_tokens for b in plan_batches(lengths, 1000))
    in_sequence = sum(len(lengths[i : i + 10]) * max(lengths[i : i + 10]) for i in range(0, 40, 10))
    assert planned < 0.6 * in_sequence


def test_too_long_sequences_are_named():
    with pytest.raises(
        ArgumentError, match="1 sequences are longer than the budget of 50 tokens, the first is number 1 with 51"
    ):
        plan_batches([3, 51], 50)
    with pytest.raises(ArgumentError, match="at least 1"):
        plan_batches([3], 0)


def test_windows_overlap_and_reach_the_end():
    assert list(windows(10, 4, 2)) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert list(windows(3, 4, 2)) == [(0, 3)]
    with pytest.raises(ArgumentError, match="stride"):
        list(windows(10, 4, 5))
