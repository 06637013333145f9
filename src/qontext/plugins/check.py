"""`check_operator`: what a unit test of a user's operator calls."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..errors import PluginError, QontextError, all_problems
from ..ops.call import Kernel
from ..ops.declaration import declaration_problems
from ..ops.declare import Case, Op
from ..ops.device import device_of
from ..ops.eager import reference_kernel
from .conformance import (
    call_for,
    checked_cases,
    inputs_of,
    kernels_of,
    placed,
    row_count,
    run_and_compare,
    token_wise_problems,
    variants,
    with_gaps,
)

_WIDEST = 10.0


@dataclass(frozen=True)
class Checked:
    """One kernel on one case in one dtype: `refused` is empty when it ran, else why it cannot run that."""

    kernel: str
    case: str
    dtype: str
    refused: str = ""


def check_operator(op: Op) -> list[Checked]:
    """Checks a declaration, then runs every kernel, and the reference as a kernel, on every case and dtype.

    Kernels for a GPU run where torch sees one.

    Outputs that kernels fill are NaN before; inputs come contiguous and with gaps in memory, as weights and as run-time
    values; results are compared with the reference in float64 within the tolerance of the dtype (`qontext.dtypes`).

    Returns:
        What was run and what each kernel refused.
    Raises:
        PluginError: every problem in one message.
    """
    if not isinstance(op, Op):
        raise PluginError(f"check_operator takes an operator, got a {type(op).__name__}")
    problems = declaration_problems(op)
    if problems:
        raise PluginError(all_problems(f"the declaration of {op.name!r}", problems))
    cases = checked_cases(op)
    problems = list(_case_problems(op, cases))
    checked: list[Checked] = []
    on_gpu = kernels_of(op, "cuda") if torch.cuda.is_available() else []
    for kernel in [*kernels_of(op), *on_gpu, reference_kernel(op)]:
        done = []
        for case in cases:
            for dtype in case.dtypes:
                one, found = _run(op, kernel, case, dtype)
                done.append(one)
                problems += [f"{kernel.name}, case {case.name!r}, {dtype}: {problem}" for problem in found]
        if done and all(one.refused for one in done):
            reasons = "; ".join(sorted({one.refused for one in done}))
            problems.append(f"{kernel.name} runs no case at all: {reasons}")
        checked += done
    if problems:
        raise PluginError(all_problems(f"operator {op.name!r}", problems))
    problems = list(_row_problems(op, cases))
    if problems:
        raise PluginError(all_problems(f"operator {op.name!r}", problems))
    return checked


def _case_problems(op: Op, cases: list[Case]) -> Iterator[str]:
    if not cases:
        yield "it has no cases; give it cases=, a function that yields qontext.plugins.Case"
    names = [case.name for case in op.cases()]
    yield from (f"two cases are called {name!r}" for name in sorted({n for n in names if names.count(n) > 1}))
    for case in op.cases():
        if any(factor > _WIDEST for factor in case.tolerance.values()):
            yield f"case {case.name!r} allows more than {_WIDEST:g} times the tolerance, which tests nothing"
        if case.tolerance and not case.reason:
            yield f"case {case.name!r} widens the tolerance without a reason"


def _row_problems(op: Op, cases: list[Case]) -> Iterator[str]:
    """What contradicts `token_wise`."""
    if not op.token_wise:
        return
    if all(row_count(op, inputs_of(op, case, case.dtypes[0])) < 2 for case in cases):
        yield "it is token_wise, and none of its cases has two rows to show it"
    for case in cases:
        for problem in token_wise_problems(op, case, case.dtypes[0]):
            yield f"case {case.name!r}: {problem}"


def _run(op: Op, kernel: Kernel, case: Case, dtype: str) -> tuple[Checked, list[str]]:
    try:
        device = device_of(kernel.device)
        inputs = placed(op, inputs_of(op, case, dtype), device.torch)
        call = call_for(op, case, inputs, device)
    except QontextError as error:
        return Checked(kernel.name, case.name, dtype), [error.message]
    able, reason = variants(kernel, call, inputs)
    problems = []
    for variant in able:
        problems += run_and_compare(op, kernel, case, dtype, variant, inputs)
    if able and not problems:
        spread = run_and_compare(op, kernel, case, dtype, able[0], with_gaps(inputs))
        problems += [f"with gaps between the numbers of its inputs: {problem}" for problem in spread]
    return Checked(kernel.name, case.name, dtype, "" if able else reason), problems
