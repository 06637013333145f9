"""The operators' Triton kernels through Triton's interpreter, on the CPU: every case, in float32 and float16.

The interpreter's matrix product is wrong in bfloat16, so that type is left to the GPU (tests/conformance).
"""

import pytest
import torch

from qontext.ops.call import Device
from qontext.ops.catalogue import OPS
from qontext.plugins.conformance import (
    call_for,
    checked_cases,
    inputs_of,
    kernels_of,
    run_and_compare,
    variants,
    with_gaps,
)

pytest.importorskip("triton")
pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here, see tests/conformance"),
    # NumPy, which the interpreter computes with, warns where a sigmoid runs into its limits.
    pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning"),
]

# Attention has its own tests, on sizes that the interpreter can do in time.
MINE = [op for op in OPS if op.name not in ("QKVToContext", "Attention")]
# The interpreter rounds to e4m3 without a carry into the exponent: 1.96 becomes 1, not 2.
LEFT_TO_THE_GPU = ("float8_e4m3_cache",)
# Some kernels leave sm_90 to one in Gluon, which does not interpret.
DEVICES = tuple(Device("cuda", frozenset({name}), "interpreter", "cpu") for name in ("sm_90", "sm_100"))
# Interpreted for most of a minute; tests of their own run a part of the cases (tests/ops/gpt_attention, /attention).
LONG = ("triton.gpt_attention", "triton.quant_attention")
KERNELS = [
    pytest.param(op, kernel, id=kernel.name, marks=[pytest.mark.slow] if kernel.name in LONG else [])
    for op in MINE
    for kernel in kernels_of(op, "cuda")
    if kernel.name.startswith("triton.")
]


def able_call(op, kernel, case, inputs):
    """The first call that the kernel takes, or None; and why it takes no other."""
    found = [variants(kernel, call_for(op, case, inputs, device), inputs) for device in DEVICES]
    return next((able[0] for able, _ in found if able), None), {reason for _, reason in found}


@pytest.mark.parametrize(("op", "kernel"), KERNELS)
def test_kernel_equals_the_reference(op, kernel):
    ran, refused = 0, set()
    for case in checked_cases(op):
        for dtype in case.dtypes:
            if dtype == "bfloat16" or case.name in LEFT_TO_THE_GPU:
                continue
            inputs = inputs_of(op, case, dtype)
            call, reasons = able_call(op, kernel, case, inputs)
            refused |= reasons
            if call is not None:
                assert run_and_compare(op, kernel, case, dtype, call, inputs) == [], (case.name, dtype)
                ran += 1
    assert ran, refused


@pytest.mark.parametrize(("op", "kernel"), KERNELS)
def test_kernel_takes_inputs_with_gaps(op, kernel):
    ran = 0
    for case in checked_cases(op):
        if case.name in LEFT_TO_THE_GPU:
            continue
        inputs = inputs_of(op, case, "float32")
        call, _ = able_call(op, kernel, case, inputs)
        if call is not None and all(t is None or t.numel() for t in inputs):
            assert run_and_compare(op, kernel, case, "float32", call, with_gaps(inputs)) == [], case.name
            ran += 1
    assert ran or "linear" in kernel.name
