"""Cases of the catalogue as test parameters, and what tests need to run them."""

import zlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from qontext.dtypes import by_name, from_torch, relative_rms
from qontext.ops.call import Call, Kernel
from qontext.ops.catalogue import OPS
from qontext.ops.declare import Case, Op, call_of
from qontext.ops.device import device_of

CPU = device_of("cpu")
INTEGER_FILL = -77


def checked_cases(op: Op) -> list[Case]:
    """The cases that are not for timing."""
    return [case for case in op.cases() if not case.bench]


def kernels_of(op: Op, device: str = "cpu") -> list[Kernel]:
    return [kernel for kernel in op.kernels if kernel.device == device]


def kernel_params() -> list[pytest.param]:
    return [pytest.param(op, kernel, id=kernel.name) for op in OPS for kernel in kernels_of(op)]


def case_params() -> list[pytest.param]:
    return [pytest.param(op, case, id=f"{op.name}-{case.name}") for op in OPS for case in checked_cases(op)]


def inputs_of(op: Op, case: Case, dtype: str) -> list[torch.Tensor | None]:
    """The case's inputs, the same in every run."""
    seed = zlib.crc32(f"{op.name}/{case.name}".encode())
    made = list(case.make(torch.Generator().manual_seed(seed), by_name(dtype).torch))
    assert len(made) == len(op.inputs), f"{op.name}/{case.name} makes {len(made)} inputs of {len(op.inputs)}"
    return made


def call_for(op: Op, case: Case, inputs: Sequence[torch.Tensor | None]) -> Call:
    return call_of(op, inputs, case.attributes, op.wanted(case.outputs), CPU)


def with_constants(call: Call, inputs: Sequence[torch.Tensor | None]) -> Call:
    """The same call with every input but the first a weight, as kernels that repack them need."""
    operands = [
        o if i == 0 or o is None or t is None else replace(o, constant=t)
        for i, (o, t) in enumerate(zip(call.inputs, inputs, strict=True))
    ]
    return replace(call, inputs=tuple(operands))


def variants(kernel: Kernel, call: Call, inputs: Sequence[torch.Tensor | None]) -> tuple[list[Call], str]:
    """The calls, with and without constant weights, that the kernel can run, and why it refused the last one."""
    able, reason = [], ""
    for candidate in (call, with_constants(call, inputs)):
        refusal = kernel.supports(candidate)
        if refusal is None:
            able.append(candidate)
        else:
            reason = refusal
    return able, reason


def expected(op: Op, call: Call, inputs: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
    """All outputs of the reference in float64."""
    wide = [t.double() if t is not None and t.is_floating_point() else t for t in inputs]
    result = op.reference(*wide, **call.attributes)
    return result if isinstance(result, tuple) else (result,)


def poisoned(call: Call) -> list[torch.Tensor | None]:
    """Outputs for the kernel to fill: NaN, or an unlikely number, in every place."""
    made: list[torch.Tensor | None] = []
    for operand in call.outputs:
        if operand is None:
            made.append(None)
            continue
        dtype = operand.type.torch
        fill = float("nan") if dtype.is_floating_point else True if dtype == torch.bool else INTEGER_FILL
        made.append(torch.full([int(d) for d in operand.shape], fill, dtype=dtype))
    return made


def problem_with(name: str, got: torch.Tensor | None, want: torch.Tensor | None, operand, factor: float) -> str | None:
    """One sentence when an output is not what the reference says, within the tolerance of its dtype."""
    if got is None or want is None:
        return f"{name}: got {'nothing' if got is None else 'a tensor'}, reference {'none' if want is None else 'one'}"
    kind = from_torch(got.dtype)
    if kind.name != operand.dtype:
        return f"{name} is {kind.name}, declared {operand.dtype}"
    if tuple(got.shape) != tuple(want.shape) or tuple(got.shape) != _numbers(operand.shape, got.shape):
        return f"{name} has shape {tuple(got.shape)}, reference {tuple(want.shape)}, declared {operand.shape}"
    if not kind.is_float:
        return None if torch.equal(got, want.to(got.dtype)) else f"{name} differs: {got} instead of {want}"
    if not torch.isfinite(got).all() and torch.isfinite(want).all():
        return f"{name} has {int((~torch.isfinite(got)).sum())} values that are not finite"
    error = relative_rms(got, want)
    allowed = kind.tolerance * factor
    return None if error <= allowed else f"{name}: relative error {error:.2e}, allowed {allowed:.2e}"


def _numbers(shape: Sequence[object], found: Sequence[int]) -> tuple[int, ...]:
    """The declared shape, with what depends on data taken as found."""
    return tuple(d if isinstance(d, int) else f for d, f in zip(shape, found, strict=False)) if shape else ()
