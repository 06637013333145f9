"""Cases of the catalogue as test parameters."""

import pytest

from qontext.dtypes import relative_rms
from qontext.ops.catalogue import OPS
from qontext.ops.declare import call_of
from qontext.ops.device import device_of
from qontext.plugins.conformance import (
    call_for,
    checked_cases,
    expected,
    inputs_of,
    kernels_of,
    poisoned,
    problem_with,
    run_and_compare,
    token_wise_problems,
    variants,
    with_gaps,
)

CPU = device_of("cpu")

__all__ = [
    "CPU",
    "call_for",
    "call_of",
    "case_params",
    "checked_cases",
    "expected",
    "inputs_of",
    "kernel_params",
    "kernels_of",
    "poisoned",
    "problem_with",
    "relative_rms",
    "run_and_compare",
    "token_wise_problems",
    "variants",
    "with_gaps",
]


def kernel_params() -> list[pytest.param]:
    return [pytest.param(op, kernel, id=kernel.name) for op in OPS for kernel in kernels_of(op)]


def case_params() -> list[pytest.param]:
    return [pytest.param(op, case, id=f"{op.name}-{case.name}") for op in OPS for case in checked_cases(op)]
