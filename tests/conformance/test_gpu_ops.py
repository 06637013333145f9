"""On a GPU: every operator x CUDA kernel x case x dtype against the reference in float64, NaN and guards in outputs."""

import op_cases
import pytest
import torch

from qontext.ops.catalogue import OPS
from qontext.plugins.conformance import placed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]

KERNELS = [pytest.param(op, kernel, id=kernel.name) for op in OPS for kernel in op_cases.kernels_of(op, "cuda")]
COMBINATIONS = [
    pytest.param(op, kernel, case, dtype, id=f"{kernel.name}-{case.name}-{dtype}")
    for op in OPS
    for kernel in op_cases.kernels_of(op, "cuda")
    for case in op_cases.checked_cases(op)
    for dtype in case.dtypes
]


def on_gpu(op, case, dtype, kernel):
    """The case's inputs on the GPU, the calls that the kernel can run, and why it refused the last one."""
    device = op_cases.device_of("cuda")
    inputs = placed(op, op_cases.inputs_of(op, case, dtype), device.torch)
    able, reason = op_cases.variants(kernel, op_cases.call_for(op, case, inputs, device), inputs)
    return inputs, able, reason


@pytest.mark.parametrize(("op", "kernel", "case", "dtype"), COMBINATIONS)
def test_kernel_equals_the_reference(op, kernel, case, dtype):
    inputs, able, reason = on_gpu(op, case, dtype, kernel)
    if not able:
        pytest.skip(reason)
    for call in able:
        assert op_cases.run_and_compare(op, kernel, case, dtype, call, inputs) == []
    if all(t is None or t.numel() for t in inputs):
        strided = op_cases.with_gaps(inputs)
        assert op_cases.run_and_compare(op, kernel, case, dtype, able[0], strided) == [], "inputs with gaps"


@pytest.mark.parametrize(("op", "kernel"), KERNELS)
def test_every_kernel_runs_some_case(op, kernel):
    reasons = set()
    for case in op_cases.checked_cases(op):
        for dtype in case.dtypes:
            _, able, reason = on_gpu(op, case, dtype, kernel)
            if able:
                return
            reasons.add(reason)
    if any(reason.startswith("gluon.") for reason in reasons):
        pytest.skip(f"{kernel.name} leaves this device to another kernel")
    pytest.fail(f"{kernel.name} supports no case at all: {sorted(reasons)}")


@pytest.mark.parametrize(("op", "kernel"), [p for p in KERNELS if p.values[1].writes_out])
def test_kernel_can_be_captured_and_replayed(op, kernel):
    """The graph is replayed on other numbers than it was captured with, twice, into outputs filled with NaN."""
    done = 0
    for case in op_cases.checked_cases(op)[:8]:
        dtype = case.dtypes[min(1, len(case.dtypes) - 1)]
        inputs, able, _ = on_gpu(op, case, dtype, kernel)
        if not able or any(t is not None and t.numel() == 0 for t in inputs):
            continue
        call = able[0]
        if op.updates:
            continue  # what is updated in place has tests of its own
        want = op_cases.expected(op, call, inputs)
        if any(not isinstance(d, int) for o in call.outputs if o is not None for d in o.shape):
            continue  # sizes that depend on data have tests of their own
        first = inputs[0].clone()
        out = op_cases.poisoned(call)
        run = kernel.bind(call)
        inputs[0].copy_(torch.roll(first, 1, -1))
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run(inputs, out)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run(inputs, out)
        inputs[0].copy_(first)
        for _ in range(2):
            for tensor in out:
                if tensor is not None and tensor.is_floating_point():
                    tensor.fill_(float("nan"))
            graph.replay()
            for param, operand, got, reference in zip(op.outputs, call.outputs, out, want, strict=True):
                if operand is not None:
                    factor = case.tolerance.get(dtype, 1.0)
                    found = op_cases.problem_with(param.name, got, reference, operand, factor, case.levels)
                    assert found is None, case.name
        done += 1
    if not done:
        pytest.skip("none of the first cases suits the kernel")
