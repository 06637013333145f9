"""Static tensors filled from the host."""

import itertools

import torch

from qontext.runtime.landing import Landing, LandingPad


def pad():
    return LandingPad(
        [
            Landing(3, (8,), torch.int64),
            Landing(5, (5,), torch.int32, cumulative=True),
            Landing(7, (8, 3), torch.float16),
            Landing(9, (), torch.float32),
        ],
        torch.device("cpu"),
    )


def values(ids, ends):
    return {
        3: torch.tensor(ids),
        5: torch.tensor(ends, dtype=torch.int32),
        7: torch.full((len(ids), 3), float(len(ids)), dtype=torch.float16),
        9: torch.tensor(1.5),
    }


def launched(found, given):
    """Fills, and does what a graph that lands does."""
    found.fill(given)
    found.land()
    found.turn()


def test_values_stand_in_front_and_sequences_behind_are_empty():
    found = pad()
    for _ in range(3):
        launched(found, values([4, 5, 6, 7, 8], [0, 2, 5]))
        assert found.views[3].tolist() == [4, 5, 6, 7, 8, 0, 0, 0]
        assert found.views[5].tolist() == [0, 2, 5, 5, 5]
        assert found.views[7][:5].eq(5).all() and found.views[7][5:].eq(0).all()
        assert found.views[9] == 1.5


def test_smaller_values_leave_valid_ones_behind():
    found = pad()
    addresses = {slot: view.data_ptr() for slot, view in found.views.items()}
    launched(found, values([4, 5, 6, 7, 8], [0, 2, 5]))
    launched(found, values([9], [0, 1]))
    assert found.views[3][0] == 9
    assert set(found.views[3][1:].tolist()) <= {0, 5, 6, 7, 8}
    assert found.views[5].tolist() == [0, 1, 1, 1, 1]
    assert {slot: view.data_ptr() for slot, view in found.views.items()} == addresses


def test_views_do_not_overlap():
    found = pad()
    launched(found, values([1] * 8, [0, 2, 5, 7, 8]))
    spans = sorted((v.data_ptr(), v.data_ptr() + v.numel() * v.element_size()) for v in found.views.values())
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    assert all(begin % 256 == spans[0][0] % 256 for begin, _ in spans)


def test_the_next_batch_may_be_written_before_this_one_has_landed():
    found = pad()
    found.fill(values([1, 2], [0, 2]))
    found.turn()
    found.fill(values([3, 4], [0, 1]))
    found.turn()
    found.land()
    assert found.views[3][:2].tolist() == [1, 2]
    assert found.views[5].tolist() == [0, 2, 2, 2, 2]
    found.land()
    assert found.views[3][:2].tolist() == [3, 4]
    assert found.views[5].tolist() == [0, 1, 1, 1, 1]


def test_what_is_always_the_same_is_written_once_and_again_after_another():
    found, owner = pad(), object()
    same = {k: v for k, v in values([5, 6], [0, 2]).items() if k != 3}
    for round_ in range(6):
        if round_ == 4:
            launched(found, values([1] * 8, [0, 8]))
        found.fill({3: torch.tensor([round_, 7])}, same, owner)
        found.land()
        found.turn()
        assert found.views[3][:2].tolist() == [round_, 7]
        assert found.views[5].tolist() == [0, 2, 2, 2, 2]
        assert found.views[7][:2].eq(2).all()


def test_a_new_beginning_forgets_whose_turn_it_was():
    found = pad()
    launched(found, values([1], [0, 1]))
    found.begin()
    launched(found, values([2], [0, 1]))
    assert found.views[3][0] == 2
