"""Taps on what linear layers read and write while an engine runs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch

from ..builder.compile import Compiled
from ..builder.plan import Program, Step
from ..graph.model import InputRule
from ..runtime.executor import Observe

LINEAR = ("Linear", "QuantLinear", "GroupLinear")
ATTENTION = ("QKVToContext", "QuantQKVToContext")


class Runner(Protocol):
    """An engine, as calibration sees it."""

    compiled: Compiled
    input_rules: dict[str, InputRule]

    @property
    def max_length(self) -> int | None:
        """Longest sequence that it takes."""
        ...

    def run(self, inputs: Mapping[str, Any], observe: Observe | None = None) -> dict[str, Any]:
        """Runs a batch with a tap."""
        ...


def linear_steps(program: Program) -> list[Step]:
    """The steps that are linear layers with a constant weight."""
    found = []
    for step in program.steps:
        weight = step.call.inputs[1] if step.op in LINEAR else None
        if weight is not None and weight.constant is not None:
            found.append(step)
    return found


def attention_steps(program: Program) -> list[Step]:
    """The steps that are attention from a fused projection."""
    return [step for step in program.steps if step.op in ATTENTION]


# (layer, what it reads [..., K], what it gives [..., M]); of attention its projection and its context. The tensors are
# valid during the call only.
Seen = Callable[[Step, torch.Tensor, torch.Tensor], None]


def watch(runner: Runner, batches: Iterable[Mapping[str, Any]], seen: Seen, each: Callable[[Any], None]) -> None:
    """Runs batches and shows every linear layer and attention with what it reads and writes; `each` gets the outputs.

    A layer that reads an input of the program directly is not shown: its values never pass a step.
    """
    program = runner.compiled.programs["encode"]
    steps = [*linear_steps(program), *attention_steps(program)]
    wanted = {step.inputs[0] for step in steps}
    layers = {step.name for step in steps}
    held: dict[int, torch.Tensor] = {}

    def tap(step: Step, outputs: tuple[torch.Tensor | None, ...]) -> None:
        for slot, tensor in zip(step.outputs, outputs, strict=False):
            if slot in wanted and tensor is not None:
                held[slot] = tensor
        x, y = held.get(step.inputs[0]) if step.inputs else None, outputs[0]
        if step.name in layers and x is not None and y is not None:
            seen(step, x, y)

    for batch in batches:
        held.clear()
        each(runner.run(batch, tap))
