"""Running kernels of an operator on its cases against its reference: outputs pre-filled with NaN, inputs watched.

The conformance test of qontext's own operators and `check_operator` for the user's share this.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..dtypes import by_name, from_torch, relative_rms
from ..errors import PluginError, QontextError
from ..ops.call import Call, Device, Kernel, Operand
from ..ops.declare import Case, Op, Param, call_of
from ..ops.device import device_of

Tensors = Sequence[torch.Tensor | None]
INTEGER_FILL = -77
GUARD = 64  # elements before and after every output that kernels fill


def checked_cases(op: Op) -> list[Case]:
    """The cases that are not for timing."""
    return [case for case in op.cases() if not case.bench]


def kernels_of(op: Op, device: str = "cpu") -> list[Kernel]:
    return [kernel for kernel in op.kernels if kernel.device == device]


def inputs_of(op: Op, case: Case, dtype: str) -> list[torch.Tensor | None]:
    """The case's inputs, the same in every run. Raises PluginError when their number is not that of the operator."""
    seed = zlib.crc32(f"{op.name}/{case.name}".encode())
    made = list(case.make(torch.Generator().manual_seed(seed), by_name(dtype).torch))
    if len(made) != len(op.inputs):
        raise PluginError(f"{op.name}: case {case.name!r} makes {len(made)} inputs, the operator has {len(op.inputs)}")
    return made


def placed(op: Op, inputs: Tensors, device: torch.device) -> list[torch.Tensor | None]:
    """The inputs on a device; those that are read on the host stay there."""
    return [t if t is None or param.host else t.to(device) for param, t in zip(op.inputs, inputs, strict=True)]


def call_for(op: Op, case: Case, inputs: Tensors, device: Device | None = None) -> Call:
    """The checked call of a case on a device, the CPU when None."""
    return call_of(op, inputs, case.attributes, op.wanted(case.outputs), device or device_of("cpu"))


def with_constants(call: Call, inputs: Tensors) -> Call:
    """The same call with every input but the first a weight, as kernels that repack them need."""
    operands = [
        o if i == 0 or o is None or t is None else replace(o, constant=t)
        for i, (o, t) in enumerate(zip(call.inputs, inputs, strict=True))
    ]
    return replace(call, inputs=tuple(operands))


def variants(kernel: Kernel, call: Call, inputs: Tensors) -> tuple[list[Call], str]:
    """The calls, with and without constant weights, that the kernel can run, and why it refused the last one."""
    able, reason = [], ""
    for candidate in (call, with_constants(call, inputs)):
        refusal = kernel.supports(candidate)
        if refusal is None:
            able.append(candidate)
        else:
            reason = refusal
    return able, reason


def expected(op: Op, call: Call, inputs: Tensors) -> tuple[torch.Tensor | None, ...]:
    """All outputs of the reference in float64, computed on the CPU; what is updated or in 8 bits keeps its dtype."""
    here = [None if t is None else t.cpu() for t in inputs]
    held = op.updated_inputs.values()
    narrow = {i for i, t in enumerate(here) if t is None or not t.is_floating_point() or t.itemsize == 1}
    wide = [t if t is None or i in narrow or i in held else t.double() for i, t in enumerate(here)]
    result = op.reference(*wide, **call.attributes)
    return result if isinstance(result, tuple) else (result,)


def row_count(op: Op, inputs: Tensors) -> int:
    """How many rows the inputs of a token-wise operator have."""
    flat = _rows_of(op.inputs, inputs)
    return next((t.shape[0] for p, t in zip(op.inputs, flat, strict=True) if p.has_rows and t is not None), 0)


def token_wise_problems(op: Op, case: Case, dtype: str) -> list[str]:
    """Sentences about a case that contradicts `token_wise`: its rows without their leading axes, in another order and
    in two parts, have to give the same rows."""
    inputs = inputs_of(op, case, dtype)
    call = call_for(op, case, inputs)
    want = _rows_of(op.outputs, expected(op, call, inputs))
    flat = _rows_of(op.inputs, inputs)
    count = row_count(op, inputs)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    parts = (order[: count // 2], order[count // 2 :])
    problems = []
    for rows in (order, *parts):
        taken = [t[rows] if p.has_rows and t is not None else t for p, t in zip(op.inputs, flat, strict=True)]
        try:
            found = expected(op, call_for(op, case, taken), taken)
        except QontextError as error:
            return [f"it is token_wise, but rows without their leading axes are refused: {error.message}"]
        for param, operand, got, right in zip(op.outputs, call.outputs, found, want, strict=False):
            same = operand is None or (got is not None and right is not None and _equal(got, right[rows]))
            if not same:
                problems.append(f"it is token_wise, but {param.name} of {len(rows)} of its {count} rows differs")
    return problems


def _rows_of(params: Sequence[Param], tensors: Tensors) -> list[torch.Tensor | None]:
    """Operands with rows as `[rows, ...]`, the axes behind the rows as they are; the others unchanged."""
    return [
        t if t is None or not p.has_rows else t.reshape(-1, *t.shape[t.dim() - len(p.axes.split()) + 1 :])
        for p, t in zip(params, tensors, strict=False)
    ]


def _equal(got: torch.Tensor, want: torch.Tensor) -> bool:
    """Equal shapes, and numbers within the tolerance of float64."""
    if not want.is_floating_point():
        return torch.equal(got, want)
    return relative_rms(got, want) <= by_name("float64").tolerance


def poisoned(call: Call) -> list[torch.Tensor | None]:
    """Outputs for the kernel to fill: NaN, or an unlikely number, in every place and in GUARD places around them."""
    made: list[torch.Tensor | None] = []
    for operand in call.outputs:
        if operand is None:
            made.append(None)
            continue
        sizes = [d for d in operand.shape or () if isinstance(d, int)]
        count, dtype = math.prod(sizes), operand.type.torch
        whole = torch.full([count + 2 * GUARD], _fill(dtype), dtype=dtype, device=call.device.torch)
        made.append(whole[GUARD : GUARD + count].view(sizes))
    return made


def _sized(call: Call, want: Tensors) -> Call:
    """The call with the shapes of the results for outputs whose sizes depend on data."""
    outputs = [
        o
        if o is None or t is None or all(isinstance(d, int) for d in o.shape or ())
        else replace(o, shape=tuple(t.shape))
        for o, t in zip(call.outputs, want, strict=False)
    ]
    return replace(call, outputs=tuple(outputs))


def _fill(dtype: torch.dtype) -> float | bool | int:
    return float("nan") if dtype.is_floating_point else True if dtype == torch.bool else INTEGER_FILL


def spilled(name: str, filled: torch.Tensor | None) -> str | None:
    """One sentence when a kernel wrote around an output that `poisoned` made."""
    if filled is None:
        return None
    whole = torch.empty(0, dtype=filled.dtype, device=filled.device).set_(filled.untyped_storage())
    around = torch.cat([whole[:GUARD], whole[-GUARD:]])
    held = around.isnan() if filled.is_floating_point() else around == _fill(filled.dtype)
    return None if bool(held.all()) else f"{name}: {int((~held).sum())} places around it were written"


def with_gaps(inputs: Tensors) -> list[torch.Tensor | None]:
    """The same numbers with gaps between them in memory: the executor hands over views too."""
    return [t if t is None or t.dim() == 0 else torch.stack([t, t], -1)[..., 0] for t in inputs]


def run_and_compare(op: Op, kernel: Kernel, case: Case, dtype: str, call: Call, inputs: Tensors) -> list[str]:
    """Runs one bound kernel on poisoned outputs; returns sentences about what is wrong.

    What the operator updates is copied first, gaps in memory included, so that the inputs serve again.
    """
    updated = op.updated_inputs
    inputs = [_copy(t) if i in updated.values() else t for i, t in enumerate(inputs)]
    before = [None if t is None else t.clone() for t in inputs]
    want = expected(op, call, inputs)
    out = poisoned(_sized(call, want)) if kernel.writes_out else None
    for output, source in updated.items() if out is not None else ():
        assert out is not None
        out[output] = inputs[source] if call.outputs[output] is not None else None
    result = kernel.bind(call)(inputs, out)
    results = result if isinstance(result, tuple) else (result,)
    last = max(i for i, operand in enumerate(call.outputs) if operand is not None)
    for who, given in (("the reference", want), ("the kernel", results)):
        if len(given) <= last:
            return [f"{who} gives {len(given)} outputs, {last + 1} are wanted"]
    problems: list[str | None] = []
    for i, (param, operand) in enumerate(zip(op.outputs, call.outputs, strict=True)):
        if operand is None:
            continue
        got = results[i] if out is None else out[i]
        if out is None and i not in updated:
            problems += _borrowed(op, kernel, i, got, inputs)
        elif out is not None and results[i] is not None and results[i].data_ptr() != out[i].data_ptr():  # type: ignore[union-attr]
            problems.append(f"{param.name} was not written where the caller asked")
        if out is not None and i not in updated:
            problems.append(spilled(param.name, got))
        if i in updated and got is not inputs[updated[i]]:
            problems.append(f"{param.name} is not {op.inputs[updated[i]].name}, which it is declared to be")
        problems.append(problem_with(param.name, got, want[i], operand, case.tolerance.get(dtype, 1.0), case.levels))
    for i, (param, old, new) in enumerate(zip(op.inputs, before, inputs, strict=True)):
        if old is not None and new is not None and i not in updated.values() and not torch.equal(old, new):
            problems.append(f"input {param.name} was changed")
    return [problem for problem in problems if problem is not None]


def _copy(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """A copy with the same strides."""
    if tensor is None:
        return None
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _borrowed(op: Op, kernel: Kernel, index: int, got: torch.Tensor | None, inputs: Tensors) -> list[str]:
    """Inputs whose memory a result shares: the executor may write over them while the result is still read."""
    if got is None or got.numel() == 0:
        return []
    mine = got.untyped_storage().data_ptr()
    return [
        f"{op.outputs[index].name} shares the memory of input {param.name}; results need memory of their own"
        for i, (param, tensor) in enumerate(zip(op.inputs, inputs, strict=True))
        if tensor is not None and tensor.untyped_storage().data_ptr() == mine and (index, i) not in kernel.inplace
    ]


def problem_with(
    name: str,
    got: torch.Tensor | None,
    want: torch.Tensor | None,
    operand: Operand,
    factor: float = 1.0,
    levels: int = 0,
) -> str | None:
    """One sentence when an output is not what the reference says, within the tolerance of its dtype and levels."""
    if got is None or want is None:
        return f"{name}: got {'nothing' if got is None else 'a tensor'}, reference {'none' if want is None else 'one'}"
    got, want = got.cpu(), want.cpu()
    kind = from_torch(got.dtype)
    if kind.name != operand.dtype:
        return f"{name} is {kind.name}, declared {operand.dtype}"
    if tuple(got.shape) != tuple(want.shape) or tuple(got.shape) != _numbers(operand, got.shape):
        return f"{name} has shape {tuple(got.shape)}, reference {tuple(want.shape)}, declared {operand.shape}"
    if not kind.is_float:
        return _whole_numbers(name, got, want.to(got.dtype), levels)
    got, want = got.double(), want.double()  # 8-bit floats have few operations of their own
    if not torch.isfinite(got).all() and torch.isfinite(want).all():
        return f"{name} has {int((~torch.isfinite(got)).sum())} values that are not finite"
    error = relative_rms(got, want)
    allowed = max(kind.tolerance * factor, 0.25 / levels if levels else 0.0)
    return None if error <= allowed else f"{name}: relative error {error:.2e}, allowed {allowed:.2e}"


def _whole_numbers(name: str, got: torch.Tensor, want: torch.Tensor, levels: int) -> str | None:
    """Whole numbers are equal; one in a hundred may be the next one where they were rounded."""
    if torch.equal(got, want):
        return None
    apart = (got.int() - want.int()).abs()
    off, most = int((apart > 0).sum()), int(apart.max())
    if levels and most <= 1 and off <= max(1, apart.numel() // 100):
        return None
    return f"{name} differs in {off} of {apart.numel()} places, by up to {most}: {got} instead of {want}"


def _numbers(operand: Operand, found: Sequence[int]) -> tuple[int, ...]:
    """The declared shape, with what depends on data taken as found."""
    shape = operand.shape or ()
    return tuple(d if isinstance(d, int) else f for d, f in zip(shape, found, strict=False))
