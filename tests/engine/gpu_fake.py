"""A GPU that is none: programs are planned and divided as for CUDA, kernels and memory are those of the host.

So everything around the kernels is tested without a GPU: the parts of a program, landing of inputs, buckets, replays
over padded sizes. A replay launches the steps again, after filling every arena with NaN: whoever reads a row that no
kernel has written gives NaN.
"""

from dataclasses import replace

import pytest
import torch

from qontext.builder import compile as compiling
from qontext.builder import plan, ranges
from qontext.ops import eager
from qontext.ops.call import Device
from qontext.ops.device import device_of
from qontext.runtime import gpu_executor

FAKE = Device("cuda", frozenset({"sm_90"}), "a fake", "cpu")


def _candidates(op, call):
    return eager.candidates(op, replace(call, device=device_of("cpu")))


class FakeCapture:
    """Stands for `CudaCapture`; counts captures."""

    def __init__(self):
        self.count = 0

    def __call__(self, body):
        self.count += 1
        first = body()
        arenas = poisonable(body)

        def replay():
            for arena in arenas():
                arena.fill_(0xFF)  # NaN in every float type
            for old, new in zip(first, body(), strict=True):
                if isinstance(old, torch.Tensor) and old is not new and old.dim():
                    old.copy_(new)

        return replay, first


def poisonable(body):
    """The arenas of the executor whose method `body` is."""
    executor = next(c.cell_contents for c in body.__closure__ if isinstance(c.cell_contents, gpu_executor.GpuExecutor))
    return lambda: executor._arenas.values()


def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `build(device="cuda")` plan for the fake."""
    monkeypatch.setattr(compiling, "check_device", lambda kind, index: None)
    monkeypatch.setattr(compiling, "device_of", lambda kind: FAKE)
    monkeypatch.setattr(plan, "candidates", _candidates)
    monkeypatch.setattr(ranges, "candidates", _candidates)
    monkeypatch.setattr(gpu_executor, "CudaCapture", FakeCapture)
