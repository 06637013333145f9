"""Which GPUs can be used: every reason against one says what was found and what to do."""

from dataclasses import replace

import pytest

from qontext.errors import ArgumentError, DeviceError
from qontext.ops.device import parse_device
from qontext.ops.gpu_facts import Gpu, GpuFacts, gpu_facts, gpu_problem

H200 = Gpu("NVIDIA H200", (9, 0), 150 << 30)
GOOD = GpuFacts("2.11.0+cu130", "13.0", "580.159.04", "3.6.0", (H200, H200))


def test_a_fitting_gpu_has_no_problem():
    assert gpu_problem(GOOD) is None
    assert gpu_problem(GOOD, 1) is None
    assert gpu_problem(replace(GOOD, gpus=(replace(H200, capability=(8, 0)),))) is None
    assert gpu_problem(replace(GOOD, triton="3.10.0")) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cuda": None}, "without CUDA; install"),
        ({"gpus": (), "driver": ""}, "for CUDA 13.0 sees no GPU; no NVIDIA driver is loaded"),
        (
            {"gpus": (), "driver": "450.80.02", "failure": "The NVIDIA driver on your system is too old"},
            r"NVIDIA driver 450.80.02 \(The NVIDIA driver on your system is too old\)",
        ),
        ({"gpus": (Gpu("Tesla T4", (7, 5), 1),)}, "Tesla T4 has compute capability 7.5, at least 8.0"),
        ({"triton": ""}, "Triton is not installed"),
        ({"triton": "3.2.0"}, "Triton 3.2.0 is installed, at least 3.3"),
    ],
)
def test_unfit_gpus_are_refused_with_the_number_that_failed(change, words):
    import re

    problem = gpu_problem(replace(GOOD, **change))
    assert problem is not None
    assert re.search(words, problem)


def test_a_gpu_that_is_not_there():
    assert "GPU 2 was asked for, this machine has 2" in (gpu_problem(GOOD, 2) or "")


def test_devices_are_parsed():
    assert [parse_device(d) for d in ("cpu", "cuda", "cuda:3")] == [("cpu", 0), ("cuda", 0), ("cuda", 3)]
    for wrong in ("gpu", "cuda:x", "cpu:1", "", None, "cuda:-1"):
        with pytest.raises(ArgumentError, match="allowed: cpu, cuda, or cuda:1"):
            parse_device(wrong)


@pytest.mark.skipif(bool(gpu_facts().gpus), reason="this machine has a GPU")
def test_building_for_a_gpu_that_is_missing_is_an_error_of_the_device():
    from qontext.builder.compile import Settings, check_settings

    with pytest.raises(DeviceError, match=r"'cuda:0' was asked for, but .*use device='cpu'"):
        check_settings(Settings(device="cuda"))
