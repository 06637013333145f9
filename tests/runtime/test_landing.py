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


def test_values_stand_in_front_and_sequences_behind_are_empty():
    found = pad()
    for _ in range(3):
        found.fill(values([4, 5, 6, 7, 8], [0, 2, 5]))
        assert found.views[3].tolist() == [4, 5, 6, 7, 8, 0, 0, 0]
        assert found.views[5].tolist() == [0, 2, 5, 5, 5]
        assert found.views[7][:5].eq(5).all() and found.views[7][5:].eq(0).all()
        assert found.views[9] == 1.5


def test_smaller_values_leave_valid_ones_behind():
    found = pad()
    addresses = {slot: view.data_ptr() for slot, view in found.views.items()}
    found.fill(values([4, 5, 6, 7, 8], [0, 2, 5]))
    found.fill(values([9], [0, 1]))
    assert found.views[3][0] == 9
    assert set(found.views[3][1:].tolist()) <= {0, 5, 6, 7, 8}
    assert found.views[5].tolist() == [0, 1, 1, 1, 1]
    assert {slot: view.data_ptr() for slot, view in found.views.items()} == addresses


def test_views_do_not_overlap():
    found = pad()
    found.fill(values([1] * 8, [0, 2, 5, 7, 8]))
    spans = sorted((v.data_ptr(), v.data_ptr() + v.numel() * v.element_size()) for v in found.views.values())
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    assert all(begin % 256 == spans[0][0] % 256 for begin, _ in spans)
