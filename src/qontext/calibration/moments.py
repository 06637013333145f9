"""Gathers, while samples run, what the rounding of weights has to know of what layers read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..builder.plan import Step
from ..quant.moments import Moments
from .watch import Runner, linear_steps, watch

# Tokens that are looked at, evenly spread over the samples: products of rows cost the square of the columns, so wide
# layers get fewer of them.
MOST_ROWS = 16_384
MOST_WORK = 4096 * 3072**2
MOST_BYTES = 4 << 30  # of moments, for all layers together


@dataclass
class _Tensor:
    """A tensor that layers read: the layer that is looked at for it, the rows that passed, its moments."""

    layer: str
    rows: int = 0
    moments: Moments = field(default_factory=Moments)


class Watching:
    """Moments of every linear layer of an engine; layers that read one tensor share theirs.

    Layers come in their order while all of them fit into MOST_BYTES; those that do not are not looked at.
    """

    def __init__(self, runner: Runner, batches: Sequence[Mapping[str, Any]]) -> None:
        self._runner, self._batches = runner, batches
        self._tokens = sum(max(torch.as_tensor(v).numel() for v in batch.values()) for batch in batches)
        self._tensors: dict[int, _Tensor] = {}
        self._of: dict[str, _Tensor] = {}
        self._began = False
        left = MOST_BYTES
        for step in linear_steps(runner.compiled.programs["encode"]):
            slot, weight = step.inputs[0], step.call.inputs[1]
            assert weight is not None and weight.constant is not None
            if slot not in self._tensors:
                needed = 4 * weight.constant.shape[1] ** 2
                if needed > left:
                    continue
                left -= needed
                self._tensors[slot] = _Tensor(step.name)
            self._of[step.name] = self._tensors[slot]

    def seen(self, step: Step, x: torch.Tensor, y: torch.Tensor) -> None:
        """What `watch` calls. Raises CalibrationError for NaN or infinity in x."""
        self._began = True
        read = self._of.get(step.name)
        if read is None or read.layer != step.name:
            return
        flat = x.reshape(-1, x.shape[-1])
        most = min(MOST_ROWS, MOST_WORK // flat.shape[1] ** 2)
        if most < self._tokens:
            first = torch.arange(read.rows, read.rows + len(flat), device=flat.device) * most
            read.rows += len(flat)
            flat = flat[(first + most) // self._tokens > first // self._tokens]
        read.moments.add(flat, step.name)

    def found(self) -> dict[str, Moments]:
        """By name of the layer; runs the samples if calibration had no need to."""
        if not self._began:
            watch(self._runner, self._batches, self.seen, lambda outputs: None)
        return {name: read.moments for name, read in self._of.items()}
