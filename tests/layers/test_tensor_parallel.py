"""Layers of 2 and 4 processes equal those of one: heads divided, key heads divided or repeated, vocabulary padded."""

import socket

import pytest
import ranks
import torch

from qontext.dtypes import by_name
from qontext.errors import ArgumentError
from qontext.layers import kv_head_rows, padded_vocabulary


def test_two_and_four_ranks_equal_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = torch.full((4, 2), float("nan")).share_memory_()
    torch.multiprocessing.spawn(ranks.process, args=(port, results), nprocs=4)
    assert results.max() <= by_name("float32").tolerance


def test_which_rank_holds_what():
    assert [kv_head_rows(8, 4, r) for r in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert [kv_head_rows(2, 4, r) for r in range(4)] == [[0], [0], [1], [1]]
    with pytest.raises(ArgumentError, match="num_kv_heads is 3 and tp_size 2"):
        kv_head_rows(3, 2, 0)
    assert [padded_vocabulary(n, 4) for n in (37, 40)] == [40, 40]
