"""Guard rails: a quantised engine beside the float one on the same samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..builder.plan import Step
from ..errors import AccuracyError, all_problems
from ..ops.attention_common.layouts import split_qkv
from ..ops.attention_common.problem import kv_heads
from ..ops.eight_bits import MOST, levels
from ..ops.group_linear.op import OP as GROUP_LINEAR
from ..ops.linear.op import OP as LINEAR_OP
from ..ops.quant_linear.op import OP as QUANT_LINEAR
from ..ops.quant_qkv_to_context.reference import on_levels
from ..ops.quant_qkv_to_context.rules import CONTEXT_SCALE, QKV_SCALE
from ..runtime.executor import Observe
from .watch import Runner, attention_steps, linear_steps, watch

MOST_CUT = 0.05  # of what a layer reads may lie outside its static range
_DEAD = 1e-3  # of the float result's spread: less is a constant

Batch = Mapping[str, Any]


@dataclass
class Comparison:
    """Relative RMS errors of a quantised engine: of outputs, and of every layer's result; `cut` is the part of what a
    layer reads that lies outside its static range."""

    outputs: dict[str, float] = field(default_factory=dict)
    layers: dict[str, float] = field(default_factory=dict)
    cut: dict[str, float] = field(default_factory=dict)

    @property
    def error(self) -> float:
        """The largest error of an output."""
        return max(self.outputs.values(), default=0.0)


class _Sums:
    """Squares of differences and of references, by name."""

    def __init__(self) -> None:
        self.lost: dict[str, float] = {}
        self.whole: dict[str, float] = {}

    def add(self, name: str, got: torch.Tensor, want: torch.Tensor) -> None:
        difference = (got.float() - want.float()).double().square().sum()
        self.lost[name] = self.lost.get(name, 0.0) + float(difference)
        self.whole[name] = self.whole.get(name, 0.0) + float(want.double().square().sum())

    def errors(self) -> dict[str, float]:
        found = {name: (lost / max(self.whole[name], 1e-30)) ** 0.5 for name, lost in self.lost.items()}
        return {name: error if error == error else float("inf") for name, error in found.items()}


def compare(floats: Runner, quantised: Runner, batches: Sequence[Batch], precision: str = "int8") -> Comparison:
    """Runs both on the samples. Raises AccuracyError when the quantised one gives zeros, constants or NaN."""
    layers, ends = _Sums(), _Sums()
    program = quantised.compiled.programs["encode"]
    makers = {slot: step for step in program.steps for slot in step.outputs if slot >= 0}
    static = {s.name: found for s in linear_steps(program) if (found := _range(s, makers.get(s.inputs[0]))) is not None}
    outside: dict[str, list[float]] = {name: [0.0, 0.0] for name in static}
    problems: dict[str, str] = {}
    for batch in batches:
        held: dict[str, torch.Tensor] = {}
        results: list[dict[str, Any]] = []

        def keep(step: Step, x: torch.Tensor, y: torch.Tensor, held: dict[str, torch.Tensor] = held) -> None:
            held[step.name] = y.clone()
            limits = static.get(step.name)
            if limits is not None:
                scaled = x if limits[2] is None else x * limits[2]
                outside[step.name][0] += float(((scaled < limits[0]) | (scaled > limits[1])).sum())
                outside[step.name][1] += x.numel()

        def hold(step: Step, x: torch.Tensor, y: torch.Tensor, held: dict[str, torch.Tensor] = held) -> None:
            if step.name in held:
                layers.add(step.name, _in_floats(step, y), held[step.name])

        watch(floats, [batch], keep, results.append)
        watch(quantised, [batch], hold, results.append)
        for name, want in results[0].items():
            wanted, got = torch.as_tensor(want), torch.as_tensor(results[1][name])
            if wanted.is_floating_point() and wanted.numel():
                problems |= _dead(name, got.float(), wanted.float())
                ends.add(name, got, wanted)
    cut = {name: some / whole for name, (some, whole) in outside.items() if whole}
    for name, part in cut.items():
        if part > MOST_CUT:
            problems[name] = f"layer {name!r} is saturated: {part:.1%} of what it reads lies outside its static range"
    if problems:
        raise AccuracyError(
            all_problems(f"the {precision} engine is unusable", problems.values())
            + "\ncalibrate on data like that of use, or build without static scales"
        )
    return Comparison(ends.errors(), layers.errors(), cut)


def check_alive(outputs: Mapping[str, Any], precision: str = "int8") -> None:
    """Raises AccuracyError for float outputs that hold NaN or infinity, or nothing but zeros."""
    problems = []
    for name, value in outputs.items():
        tensor = torch.as_tensor(value)
        if tensor.is_floating_point() and tensor.numel():
            if not bool(torch.isfinite(tensor).all()):
                problems.append(f"output {name!r} holds NaN or infinity")
            elif not bool(tensor.any()):
                problems.append(f"output {name!r} is zero everywhere")
    if problems:
        raise AccuracyError(all_problems(f"the {precision} engine is unusable", problems))


def _dead(name: str, got: torch.Tensor, want: torch.Tensor) -> dict[str, str]:
    if not bool(torch.isfinite(want).all()):
        return {}
    if not bool(torch.isfinite(got).all()):
        return {name: f"output {name!r} holds NaN or infinity, the float engine's does not"}
    if bool(want.any()) and not bool(got.any()):
        return {name: f"output {name!r} is zero everywhere, the float engine's is not"}
    if want.numel() > 1 and float(got.std()) < _DEAD * float(want.std()):
        return {name: f"output {name!r} hardly varies: {float(got.std()):.2g} against {float(want.std()):.2g}"}
    return {}


# Where operators that write eight bits have scale, zero and factor.
_WRITTEN = {"QuantLinear": 10, "QKVToContext": 7}


def _in_floats(step: Step, y: torch.Tensor) -> torch.Tensor:
    """A layer's or attention's result, which may be written in eight bits for the layer behind it."""
    if step.op == "QuantQKVToContext":
        by = step.call.input(CONTEXT_SCALE)
        return y if by is None or by.constant is None else y.float() * by.constant.to(y.device)
    place = _WRITTEN.get(step.op)
    scale, zero, factor = (None, None, None) if place is None else step.call.inputs[place : place + 3]
    if scale is None or scale.constant is None:
        return y
    values, by = levels(
        y, scale.constant.to(y.device), None if zero is None else zero.constant.to(y.device), torch.float32
    )
    wide = values * by
    return wide if factor is None or factor.constant is None else wide / factor.constant.to(y.device)


# Where operators in front of a layer, which write its x in eight bits, have the factors of its columns.
_FACTORS = {"QuantLinear": 12, "QKVToContext": 9}


def _range(step: Step, maker: Step | None) -> tuple[float, float, torch.Tensor | None] | None:
    """Least and largest of what a layer with a static scale can read, and the factors of its columns.

    maker: the step that gives what it reads.
    """
    if step.op != "QuantLinear":
        return None
    scale, zero, factor = step.call.inputs[5:8]
    if scale is None or scale.constant is None:
        return None
    step_size = float(scale.constant)
    if factor is None and maker is not None and maker.op in _FACTORS:
        factor = maker.call.input(_FACTORS[maker.op])
    columns = None if factor is None else factor.constant
    if zero is None or zero.constant is None:
        return -MOST * step_size, MOST * step_size, columns
    middle = float(zero.constant)
    # Half a step beyond the ends still rounds to them.
    return (-middle - 0.5) * step_size, (255.5 - middle) * step_size, columns


def sensitivity(floats: Runner, quantised: Runner, batch: Batch) -> dict[str, float]:
    """The error of the outputs when one layer alone multiplies bytes, by layer: what keeping it would gain.

    The float engine runs once a layer; the result of that layer is overwritten by the one of bytes. Of attention, the
    projection that it reads is overwritten by what its bytes stand for.
    """
    program = quantised.compiled.programs["encode"]
    made = {s.name: s for s in linear_steps(program) if s.op in ("QuantLinear", "GroupLinear")}
    made |= {s.name: s for s in attention_steps(program) if s.op == "QuantQKVToContext"}
    attention = {s.name: s for s in attention_steps(floats.compiled.programs["encode"])}
    want: list[dict[str, Any]] = []
    watch(floats, [batch], lambda step, x, y: None, want.append)
    found = {}
    for name, step in made.items():
        got: list[dict[str, Any]] = []
        if name in attention:
            got.append(floats.run(batch, _on_levels(attention[name], step)))
        else:
            watch(floats, [batch], _replacing(name, step), got.append)
        ends = _Sums()
        for output, value in want[0].items():
            wanted = torch.as_tensor(value)
            if wanted.is_floating_point():
                ends.add(output, torch.as_tensor(got[0][output]), wanted)
        found[name] = max(ends.errors().values(), default=0.0)
    return found


def _replacing(name: str, made: Step) -> Callable[[Step, torch.Tensor, torch.Tensor], None]:
    """Adds to a layer's result, a residual in it or not, what bytes would change."""
    constants = [None if o is None else o.constant for o in made.call.inputs]
    grouped = made.op == "GroupLinear"
    activation = made.call.attributes["activation"]

    def seen(step: Step, x: torch.Tensor, y: torch.Tensor) -> None:
        if step.name == name:
            weight, bias = (None if o is None else o.constant for o in step.call.inputs[1:3])
            if grouped:
                rounded = GROUP_LINEAR(x, *constants[1:4], bias, None, activation=activation)
                y.add_(rounded - LINEAR_OP(x, weight, bias, activation=activation))
                return
            in_bytes = QUANT_LINEAR(x, *constants[1:3], bias, None, *constants[5:8], activation=activation)
            y.add_(in_bytes - LINEAR_OP(x, weight, bias, activation=activation))

    return seen


def _on_levels(attention: Step, made: Step) -> Observe:
    """Overwrites the projection that an attention reads by what its bytes stand for."""
    settings, scale = attention.call.attributes, made.call.inputs[QKV_SCALE]
    given = [None] * 3 if scale is None or scale.constant is None else list(scale.constant.expand(3))

    def tap(step: Step, outputs: tuple[torch.Tensor | None, ...]) -> None:
        for slot, tensor in zip(step.outputs, outputs, strict=False):
            if slot != attention.inputs[0] or tensor is None:
                continue
            parts = split_qkv(tensor, settings["layout"], settings["num_heads"], kv_heads(settings))
            for part, by, axes in zip(parts, given, ((-1,), (-1,), (-3, -1)), strict=True):
                held, step_of = on_levels(part, by, axes, kind=made.call.attributes["eight_bits"])
                part.copy_(held * step_of)

    return tap
