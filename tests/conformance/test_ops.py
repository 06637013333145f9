"""Every operator x kernel x case x dtype against the reference in float64."""

import op_cases
import pytest

from qontext import native
from qontext.ops.catalogue import OPS

COMBINATIONS = [
    pytest.param(op, kernel, case, dtype, id=f"{kernel.name}-{case.name}-{dtype}")
    for op in OPS
    for kernel in op_cases.kernels_of(op)
    for case in op_cases.checked_cases(op)
    for dtype in case.dtypes
]


@pytest.mark.parametrize(("op", "kernel", "case", "dtype"), COMBINATIONS)
def test_kernel_equals_the_reference(op, kernel, case, dtype):
    inputs = op_cases.inputs_of(op, case, dtype)
    able, reason = op_cases.variants(kernel, op_cases.call_for(op, case, inputs), inputs)
    if not able:
        pytest.skip(reason)
    for call in able:
        assert op_cases.run_and_compare(op, kernel, case, dtype, call, inputs) == []


@pytest.mark.parametrize(("op", "kernel"), op_cases.kernel_params())
def test_every_kernel_runs_some_case(op, kernel):
    if kernel.name.startswith("native.") and not native.available():
        pytest.skip(native.status().reason)
    reasons = set()
    for case in op_cases.checked_cases(op):
        for dtype in case.dtypes:
            inputs = op_cases.inputs_of(op, case, dtype)
            able, reason = op_cases.variants(kernel, op_cases.call_for(op, case, inputs), inputs)
            if able:
                return
            reasons.add(reason)
    pytest.fail(f"{kernel.name} supports no case at all: {sorted(reasons)}")


@pytest.mark.parametrize(("op", "kernel"), op_cases.kernel_params())
def test_kernel_takes_strided_inputs(op, kernel):
    """The executor hands over views too: every input in turn with gaps between its elements."""
    done = False
    for case in op_cases.checked_cases(op):
        dtype = case.dtypes[0]
        inputs = op_cases.inputs_of(op, case, dtype)
        call = op_cases.call_for(op, case, inputs)
        able, _ = op_cases.variants(kernel, call, inputs)
        if not able or any(t is not None and t.numel() == 0 for t in inputs):
            continue
        strided = op_cases.with_gaps(inputs)
        assert op_cases.run_and_compare(op, kernel, case, dtype, able[0], strided) == []
        done = True
    if not done:
        pytest.skip("the kernel supports no case on this machine")


@pytest.mark.parametrize(("op", "case"), op_cases.case_params())
def test_eager_call_equals_the_reference(op, case):
    inputs = op_cases.inputs_of(op, case, case.dtypes[0])
    call = op_cases.call_for(op, case, inputs)
    result = op(*inputs, outputs=case.outputs, **case.attributes)
    results = list(result if isinstance(result, tuple) else (result,))
    want = op_cases.expected(op, call, inputs)
    for param, operand, reference in zip(op.outputs, call.outputs, want, strict=True):
        if operand is not None:
            factor = case.tolerance.get(case.dtypes[0], 1.0)
            result = results.pop(0)
            assert op_cases.problem_with(param.name, result, reference, operand, factor, case.levels) is None
    assert results == []


@pytest.mark.parametrize("op", [op for op in OPS if op.token_wise], ids=lambda op: op.name)
def test_token_wise_operators_treat_rows_one_by_one(op):
    """Padding removal hands them the rows of real tokens alone."""
    for case in op_cases.checked_cases(op):
        assert op_cases.token_wise_problems(op, case, "float32") == []


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_names_of_kernels_and_cases_are_unique(op):
    kernels = [kernel.name for kernel in op.kernels]
    cases = [case.name for case in op.cases()]
    assert len(set(kernels)) == len(kernels)
    assert len(set(cases)) == len(cases)
    assert any(case.bench for case in op.cases()), "no case for timing"


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_wider_tolerances_have_a_reason(op):
    for case in op.cases():
        assert all(factor <= 10 for factor in case.tolerance.values()), f"{case.name}: a tolerance that tests nothing"
        assert not case.tolerance or case.reason, f"{case.name} widens its tolerance without a reason"
