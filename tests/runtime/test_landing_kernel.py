"""The kernel that reads what the host has written, through Triton's interpreter."""

import pytest
import torch

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel is compiled here, see tests/engine")


@pytest.mark.parametrize("words", [64, 1024, 2500])
def test_halves_take_turns_and_what_is_not_wanted_stays_away(words):
    from qontext.runtime.landing_kernel import land

    block, programs = 1024, -(-words // 1024)
    hosts = torch.randint(1, 1 << 30, (2, words), dtype=torch.int32)
    target, turns = torch.full((words + 8,), -1, dtype=torch.int32), torch.zeros(programs, dtype=torch.int32)
    for turn in (0, 1, 0):
        land[(programs,)](hosts, target, turns, words, block, False)
        assert torch.equal(target[:words], hosts[turn])
    hosts[1, 0] = 0
    land[(programs,)](hosts, target, turns, words, block, False)
    assert torch.equal(target[:words], hosts[0])
    assert turns.tolist() == [0] * programs
    assert target[words:].eq(-1).all()
