"""Batches without padding of sizes that were run before: copy what differs, replay, hand out.

What a run finds out about such a batch depends on its shapes alone: the graph, where each input lands, positions and
boundaries, the places of the results. It is written down at the first run; a later one only copies the inputs whose
numbers may differ. At batch 1 that is most of the host's work.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch

from ..builder.plan import Step
from .graphs import Captured

# Where the inputs lie, their names, shapes, and which of them hold the same numbers whenever the shape is the same.
Signature = tuple[bool, tuple[tuple[str, tuple[int, ...]], ...], Set[str]]


def signature_of(inputs: Mapping[str, torch.Tensor], on_host: bool, fixed: Set[str]) -> Signature:
    """What two batches without padding must share to be run alike."""
    return on_host, tuple([(name, tuple(t.shape)) for name, t in inputs.items()]), fixed


@dataclass(eq=False)
class Recalled:
    """A run written down.

    key:     of its graph, `captured`
    fixed:   values that land and are the same each time, by slot
    direct:  values that land and are an input: slot, name of the input, shape
    table:   of values as the tail finds it, with the sizes
    results: slots of the outputs, and whether they lie in memory that the next run overwrites
    """

    key: Any
    captured: Captured
    fixed: Mapping[int, torch.Tensor]
    direct: tuple[tuple[int, str, tuple[int, ...]], ...]
    table: list[Any]
    sizes: Mapping[str, int]
    results: tuple[tuple[str, int, bool], ...]

    def landing(self, inputs: Mapping[str, torch.Tensor]) -> dict[int, torch.Tensor]:
        """The values that differ from run to run."""
        return {slot: inputs[name].view(shape) for slot, name, shape in self.direct}


def split_landing(
    steps: Sequence[Step],
    places: Mapping[str, int],
    inputs: Mapping[str, torch.Tensor],
    fixed: Set[str],
    table: Sequence[Any],
    landing: Sequence[int],
) -> tuple[dict[int, torch.Tensor], tuple[tuple[int, str, tuple[int, ...]], ...], set[int]] | None:
    """What lands, as `fixed` and `direct` of `Recalled`, and the slots that hold numbers of inputs that differ.

    Args:
        steps: the head, as it is for a batch without padding.
        places: slots of the inputs by name.
        table: values after the head.
        landing: slots that land.
    Returns:
        None when something lands that was computed from inputs that differ.
    """
    differing = {slot for name, slot in places.items() if name not in fixed}
    for step in steps:
        # Without padding the index follows from the shape of the mask.
        if step.op != "PackIndex" and not differing.isdisjoint(step.inputs):
            differing.update(step.outputs)
    differing.discard(-1)
    same, direct = {}, []
    for slot in landing:
        value = table[slot]
        if slot not in differing:
            same[slot] = value
            continue
        source = next((n for n in places if n not in fixed and _is_view(value, inputs[n])), None)
        if source is None:
            return None
        direct.append((slot, source, tuple(value.shape)))
    return same, tuple(direct), differing


def _is_view(value: torch.Tensor, of: torch.Tensor) -> bool:
    """Whether a value is a whole input in another shape."""
    alike = value.dtype == of.dtype and value.numel() == of.numel() and value.data_ptr() == of.data_ptr()
    return alike and value.is_contiguous() and of.is_contiguous()
