"""The GPU attention kernels on every case of their operators: interpreted on the CPU, compiled on a GPU."""

import pytest
import torch

from qontext.ops.catalogue import BY_NAME
from qontext.ops.device import device_of
from qontext.plugins.conformance import (
    call_for,
    checked_cases,
    inputs_of,
    kernels_of,
    placed,
    run_and_compare,
    with_gaps,
)

pytest.importorskip("triton")
HAS_GPU = torch.cuda.is_available()
KERNELS = [
    pytest.param(op, kernel, id=f"{op.name}-{kernel.name}")
    for op in (BY_NAME["QKVToContext"], BY_NAME["Attention"])
    for kernel in kernels_of(op, "cuda")
]
# What the interpreter does slowly: long sequences and wide heads, left to the GPU.
_LONG = ("cross_1_1500", "cross_100_33", "length_100", "length_312", "causal_long")
_WIDE = tuple(f"head_size_{size}" for size in (100, 104, 128, 256))


def problems_of(op, kernel, dtypes, gaps=False, device="cpu", skip=()):
    """(how many cases ran, what was wrong with them)"""
    place = device_of(device)
    ran, problems = 0, []
    for case in checked_cases(op):
        for dtype in case.dtypes:
            if dtype not in dtypes or case.name in skip:
                continue
            inputs = placed(op, inputs_of(op, case, dtype), place.torch)
            if gaps and any(t is not None and t.numel() == 0 for t in inputs):
                continue
            call = call_for(op, case, inputs, place)
            if kernel.supports(call) is None:
                given = with_gaps(inputs) if gaps else inputs
                wrong = run_and_compare(op, kernel, case, dtype, call, given)
                problems += [f"{case.name} {dtype}: {problem}" for problem in wrong]
                ran += 1
    return ran, problems


@pytest.mark.skipif(HAS_GPU, reason="kernels are compiled here")
@pytest.mark.parametrize(("op", "kernel"), [k for k in KERNELS if k.values[1].name.startswith("triton.")])
def test_interpreted_kernel_equals_the_reference(op, kernel):
    ran, problems = problems_of(op, kernel, ("float16",), skip=_LONG + _WIDE)
    assert ran > 10
    assert problems == []


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("op", "kernel"), KERNELS)
def test_kernel_equals_the_reference(op, kernel, dtype):
    ran, problems = problems_of(op, kernel, (dtype,), device="cuda")
    assert ran or kernel.name.startswith("hopper.")
    assert problems == []


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize(("op", "kernel"), KERNELS)
def test_kernel_takes_inputs_with_gaps(op, kernel):
    assert problems_of(op, kernel, ("float16",), gaps=True, device="cuda")[1] == []
