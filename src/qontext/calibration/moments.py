"""Gathers, while samples run, what the rounding of weights has to know of what layers read."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..builder.plan import Step
from ..quant.moments import Moments
from .watch import Runner, linear_steps, watch

MOST_ROWS = 4096  # tokens that are looked at, evenly spread over the samples
MOST_BYTES = 4 << 30  # of moments, for all layers together


class Watching:
    """Moments of every linear layer of an engine; layers that read one tensor share theirs.

    Layers come in their order while all of them fit into MOST_BYTES; those that do not are not looked at.
    """

    def __init__(self, runner: Runner, batches: Sequence[Mapping[str, Any]]) -> None:
        tokens = sum(max(torch.as_tensor(v).numel() for v in batch.values()) for batch in batches)
        self._every = max(1, -(-tokens // MOST_ROWS))
        self._by_slot: dict[int, Moments] = {}
        self._of: dict[str, int] = {}
        self._first: dict[int, str] = {}
        self._runner, self._batches = runner, batches
        left = MOST_BYTES
        for step in linear_steps(runner.compiled.programs["encode"]):
            slot, weight = step.inputs[0], step.call.inputs[1]
            assert weight is not None and weight.constant is not None
            if slot not in self._by_slot:
                needed = 4 * weight.constant.shape[1] ** 2
                if needed > left:
                    continue
                left -= needed
                self._by_slot[slot] = Moments()
                self._first[slot] = step.name
            self._of[step.name] = slot
        self.began = False  # whether anything was seen

    def seen(self, step: Step, x: torch.Tensor, y: torch.Tensor) -> None:
        """What `watch` calls. Raises CalibrationError for NaN or infinity in x."""
        self.began = True
        slot = self._of.get(step.name)
        if slot is not None and self._first[slot] == step.name:
            self._by_slot[slot].add(x.reshape(-1, x.shape[-1])[:: self._every], step.name)

    def found(self) -> dict[str, Moments]:
        """By name of the layer; runs the samples if calibration had no need to."""
        if not self.began:
            watch(self._runner, self._batches, self.seen, lambda outputs: None)
        return {name: self._by_slot[slot] for name, slot in self._of.items()}
