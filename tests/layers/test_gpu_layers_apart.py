"""Layers on GPUs: on one as on the host, and in two processes with a GPU each (through NCCL) as in one."""

import os
import socket

import pytest
import ranks
import torch

from qontext.dtypes import by_name

pytestmark = pytest.mark.gpu
TOLERANCE = by_name("float32").tolerance


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_one_gpu_equals_the_host():
    assert ranks.worst(0, 1, None, ranks.whole_for_a_gpu(), torch.device("cuda", 0)) <= TOLERANCE


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_equal_the_host():
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # no multicast over NVLink
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = torch.full((2,), float("nan")).share_memory_()
    torch.multiprocessing.spawn(ranks.gpu_process, args=(port, results), nprocs=2)
    assert results.max() <= TOLERANCE
