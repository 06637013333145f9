"""Timing every step of a program on inputs of a given size."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..builder.plan import Program, Step
from ..builder.samples import numeric_call
from ..graph.dims import Dim
from ..graph.model import InputRule
from ..ops.call import Call, Cost
from ..ops.declare import Op
from ..ops.device import current
from .executor import Executor

_LEAST_RUNS = 1


@dataclass(frozen=True)
class StepProfile:
    """One step at one size: least bytes and flops, median microseconds, shapes as numbers."""

    step: Step
    us: float
    cost: Cost
    shapes: tuple[str, ...]


@dataclass(frozen=True)
class Profile:
    """All steps, and the median of whole runs; both in microseconds."""

    steps: tuple[StepProfile, ...]
    run_us: float
    sizes: dict[str, int]


def sample_run_inputs(
    program: Program, rules: Mapping[str, InputRule], batch: int, length: int
) -> dict[str, torch.Tensor]:
    """Random inputs of a program: ids below their limits, masks of ones, floats from a normal distribution.

    A program over caches gets sequences of that length: whole prompts, or one token each after all others.
    """
    if "block_table" in program.inputs:
        return _sample_step_inputs(program, rules, batch, length)
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, slot in program.inputs.items():
        operand = program.operands[slot]
        assert operand is not None
        shape = [_size(d, batch, length) for d in program.input_shapes[name]]
        rule = rules.get(name, InputRule())
        if operand.type.is_float:
            made[name] = torch.randn(shape, generator=generator).to(operand.type.torch)
        elif rule.default == "arange" or "position" in name:
            made[name] = torch.arange(shape[-1]).expand(shape).contiguous().to(operand.type.torch)
        elif "mask" in name:
            made[name] = torch.ones(shape, dtype=operand.type.torch)
        elif rule.limit:
            made[name] = torch.randint(0, rule.limit, shape, generator=generator).to(operand.type.torch)
        else:
            made[name] = torch.zeros(shape, dtype=operand.type.torch)
    return made


def _sample_step_inputs(
    program: Program, rules: Mapping[str, InputRule], batch: int, length: int
) -> dict[str, torch.Tensor]:
    """Inputs of the programs over caches, which lie on the device, a page a sequence; all are beams of one prompt."""
    generator = torch.Generator().manual_seed(0)
    one_each = program.input_shapes["input_ids"] == program.input_shapes["query_lengths"]
    new = 1 if one_each else length
    counts = {"query_lengths": new, "past_lengths": length - new}
    made = {}
    for name, slot in program.inputs.items():
        operand = program.operands[slot]
        assert operand is not None
        kind = operand.type.torch
        if name in counts:
            made[name] = torch.full((batch,), counts[name], dtype=kind)
        elif name == "block_table":
            made[name] = torch.arange(batch, dtype=kind)[:, None].contiguous()
        elif name == "cache_indirection":
            made[name] = torch.zeros(1, batch, length, dtype=kind)
        elif name == "position_ids":
            made[name] = torch.arange(length - new, length).repeat(batch).to(kind)
        elif name == "input_ids":
            made[name] = torch.randint(0, rules[name].limit or 1, (batch * new,), generator=generator).to(kind)
        else:
            _, two, heads, _, size = program.input_shapes[name]
            shape = [d for d in (batch, two, heads, length, size) if isinstance(d, int)]
            made[name] = torch.randn(shape, generator=generator).to(kind).to(program.device.torch)
    return made


def _size(dim: int | Dim | None, batch: int, length: int) -> int:
    if isinstance(dim, int):
        return dim
    return batch if isinstance(dim, Dim) and dim.symbols[0].lower().startswith("b") else length


def profile(
    executor: Executor, ops: Mapping[str, Op], inputs: Mapping[str, torch.Tensor], seconds: float = 10.0, runs: int = 7
) -> Profile:
    """Times every step over several runs and takes medians.

    On the host steps are timed in runs as they always go. On a GPU they are launched one by one, with events of the
    device between them. There are at most `runs` of each kind, and at least one; none begins once `seconds` have
    passed.
    """
    program = executor.program
    watch: _HostWatch | _GpuWatch = _HostWatch() if program.device.torch.type == "cpu" else _GpuWatch(program)
    shapes: list[tuple[torch.Size | None, ...]] = []
    times = []
    whole = []

    def see(step: Step, outputs: tuple[torch.Tensor | None, ...]) -> None:
        shapes.append(tuple(None if t is None else t.shape for t in outputs))

    with current(program.device):
        executor.run(inputs, see)
        executor.run(inputs)
        began = time.perf_counter()
        for done in range(runs):
            if done >= _LEAST_RUNS and time.perf_counter() - began > seconds:
                break
            times.append(watch.timed(executor, inputs))
            watch.settle()
            start = time.perf_counter()
            executor.run(inputs)
            watch.settle()
            whole.append(time.perf_counter() - start)
    sizes = _sizes(program, inputs, shapes)
    rows = []
    for step, measured, seen in zip(program.steps, zip(*times, strict=True), shapes, strict=True):
        call = numeric_call(step.call, sizes)
        shown = tuple(str(list(s)) for s in seen if s is not None)
        rows.append(StepProfile(step, statistics.median(measured) * 1e6, cost_of(step, call, ops), shown))
    return Profile(tuple(rows), statistics.median(whole) * 1e6, sizes)


class _HostWatch:
    """Times the steps of a run that computes on the host."""

    def timed(self, executor: Executor, inputs: Mapping[str, torch.Tensor]) -> list[float]:
        """Seconds of every step of one run."""
        return executor.laps(inputs)

    def settle(self) -> None:
        """Waits for nothing: what was called is done."""


class _GpuWatch:
    """Times the steps of a run on a GPU.

    After the first step of the core the device sleeps until the host has launched the rest, so that its time between
    two events is the step's own and not that of a slow launch. The steps before are timed with their launches.
    """

    _SLEEP_CYCLES = 60_000_000

    def __init__(self, program: Program):
        self._first = program.parts.head if program.parts is not None else 0

    def timed(self, executor: Executor, inputs: Mapping[str, torch.Tensor]) -> list[float]:
        """Seconds of every step of one run."""
        self._marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._last = self._mark()
        executor.run(inputs, lambda step, outputs: self._lap())
        self.settle()
        return [a.elapsed_time(b) / 1e3 for a, b in self._marks]

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _lap(self) -> None:
        self._marks.append((self._last, self._mark()))
        if len(self._marks) == self._first + 1:
            torch.cuda._sleep(self._SLEEP_CYCLES)
        self._last = self._mark()

    def settle(self) -> None:
        """Waits for the device."""
        torch.cuda.synchronize()


def _sizes(
    program: Program, inputs: Mapping[str, torch.Tensor], shapes: list[tuple[torch.Size | None, ...]]
) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, tensor in inputs.items():
        for dim, size in zip(program.input_shapes[name], tensor.shape, strict=True):
            if isinstance(dim, Dim):
                sizes[dim.symbols[0]] = size
    for step, seen in zip(program.steps, shapes, strict=True):
        for output, axis, symbol in step.binds:
            found = seen[output]
            if found is not None:
                sizes[symbol] = found[axis]
    return sizes


def cost_of(step: Step, call: Call, ops: Mapping[str, Op]) -> Cost:
    """Least bytes and flops of a step: the operator's own count, or bytes in and out where it has none."""
    op = ops.get(step.op)
    if op is not None and op.cost is not None and not step.kernel.startswith("onnx."):
        return op.cost(call)
    moved = 0.0
    for operand in (*call.inputs, *call.outputs):
        if operand is None or operand.shape is None or any(not isinstance(d, int) for d in operand.shape):
            continue
        count = 1
        for dim in operand.shape:
            assert isinstance(dim, int)
            count *= dim
        moved += count * operand.type.bits / 8
    return Cost(moved, 0.0)
