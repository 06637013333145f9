"""Running a program over caches on a GPU: steps of generation as CUDA graphs, contexts launched one by one.

The caches are tensors of the caller's that stay where they are and are written in place. A step of generation reads
nothing back: its counts, tables and tokens land in static tensors, sizes are rounded up (further rows bring no token,
further pages are never reached), and one graph a size is replayed. A context has too many sizes for that and is busy
long enough to hide its launches; its counts stay on the host as well, where attention reads them.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from operator import is_
from typing import Any

import torch

from ..builder.plan import Program
from ..errors import QontextError
from ..graph.dims import Dim, Shape
from ..ops.gpt_attention.rows import COUNTS, INPUTS
from .buckets import power_of_two, round_rows
from .executor import Observe, _Ready
from .gpu_executor import GpuExecutor, Outputs
from .graphs import Capture, Captured
from .landing import Landing, LandingPad

Key = tuple[tuple[str, int], ...]
_REMEMBERED = 4096  # sizes that roundings are remembered for


class StepExecutor(GpuExecutor):
    """Runs a program that updates caches on a GPU; arguments as for `GpuExecutor`."""

    def __init__(self, program: Program, graphs: bool = True, capturer: Callable[[], Capture] | None = None):
        super().__init__(program, graphs, capturer)
        updated = {s.inputs[source] for s in program.steps for _, source in s.updates}
        self._states = {name: slot for name, slot in program.inputs.items() if slot in updated}
        self._presents = {s.outputs[output] for s in program.steps for output, _ in s.updates}
        self._brought = {name: slot for name, slot in program.inputs.items() if slot not in updated}
        shapes = program.input_shapes
        found = {s: (n, a) for n in self._brought for a, d in enumerate(shapes[n]) for s in sorted(_symbols((d,)))}
        self._axes = [(name, axis, symbol) for symbol, (name, axis) in found.items()]
        rows, beams = _symbols(shapes["query_lengths"]), _symbols(shapes.get("cache_indirection", ())[:2])
        self._rows, self._kept = rows, beams | rows if beams else beams
        self._held: list[torch.Tensor] = []
        self._held_sizes: dict[str, int] = {}
        self._roundings: dict[tuple[int, ...], _Rounding] = {}
        self._twins: dict[int, int] = {}
        self._on_host = [self._with_host_counts(ready) for ready in self._steps]
        self._table += [None] * len(self._twins)

    def _with_host_counts(self, ready: _Ready) -> _Ready:
        """Attention that reads the counts of its sequences on the host, from slots of their own."""
        step = ready.step
        if step.op != "GptAttention":
            return ready
        places = {INPUTS.index(n) for n in COUNTS}
        for i in places:
            if step.inputs[i] in self._brought.values():
                self._twins.setdefault(step.inputs[i], self.program.slots + len(self._twins))
        inputs = tuple(self._twins.get(s, s) if i in places else s for i, s in enumerate(step.inputs))
        return _Ready(replace(step, inputs=inputs), self.program, self._place)

    def release(self) -> None:
        """Frees graphs and arenas; the next run makes them anew."""
        super().release()
        for ready in self._on_host:
            ready.views.clear()

    def _run(
        self,
        inputs: Mapping[str, torch.Tensor],
        observe: Observe | None,
        check: Callable[[], None],
        ones: Set[str],
        fixed: Set[str],
    ) -> Outputs:
        check()
        self.last = None
        if observe is None and not self.graphs.reason and self._holds(inputs):
            results = self._replayed(inputs)
            if results is not None:
                return results
        table, sizes = self._start(inputs)
        self._bring(list(self._states.values()), table)
        self._launched(table, sizes, observe)
        return {name: table[slot] for name, slot in self.program.outputs.items()}

    def _launched(self, table: list[Any], sizes: dict[str, int], observe: Observe | None) -> None:
        """Launches step by step."""
        for slot, twin in self._twins.items():
            table[twin] = table[slot]
        self._bring(list(self._brought.values()), table)
        self._advance(self._on_host, table, sizes, observe)

    def _holds(self, inputs: Mapping[str, torch.Tensor]) -> bool:
        """Whether the caches lie on the device. Graphs of other caches are let go: they hold addresses."""
        caches = [inputs[name] for name in self._states]
        if len(self._held) == len(caches) and all(map(is_, caches, self._held)):
            return True
        if any(t.device != self._place for t in caches):
            return False
        self.graphs.clear()
        self._roundings.clear()
        self._held, self._held_sizes = caches, {}
        for name in self._states:
            for dim, size in zip(self.program.input_shapes[name], inputs[name].shape, strict=True):
                self._held_sizes |= dict.fromkeys(_symbols((dim,)), size)
        return True

    def _replayed(self, inputs: Mapping[str, torch.Tensor]) -> Outputs | None:
        """Replays the graph of these sizes, captured first where there is none; None when that cannot be done."""
        rounding = self._rounding(inputs)
        values = {
            slot: _padded(inputs[name], rounding.shapes[slot]) for name, slot in self._brought.items()
        }  # fmt: skip
        captured = self.graphs.get(rounding.key)
        if captured is None:
            captured = self._captured(rounding, values)
        if captured is None:
            return None
        captured.pad.fill(values)
        captured.replay()
        self.last = captured
        made = captured.outputs
        return {
            name: made[slot] if slot in self._presents else self._cut(slot, made[slot], rounding.sizes).clone()
            for name, slot in self.program.outputs.items()
        }

    def _rounding(self, inputs: Mapping[str, torch.Tensor]) -> "_Rounding":
        """The sizes of a run and what they are rounded to; the caches' stay, and so do those of beams."""
        found = tuple([inputs[name].shape[axis] for name, axis, _ in self._axes])
        known = self._roundings.get(found)
        if known is None:
            if len(self._roundings) >= _REMEMBERED:
                self._roundings.clear()
            sizes = {symbol: size for (_, _, symbol), size in zip(self._axes, found, strict=True)}
            rounded = {
                s: n if s in self._kept else round_rows(n) if s in self._rows else power_of_two(n)
                for s, n in sizes.items()
            }
            rounded |= self._held_sizes
            shapes = {
                slot: tuple(d.value(rounded) if isinstance(d, Dim) else d for d in self._operand(slot).shape)
                for slot in self._brought.values()
            }
            known = _Rounding(tuple(sorted(rounded.items())), sizes | self._held_sizes, rounded, shapes)
            self._roundings[found] = known
        return known

    def _captured(self, rounding: "_Rounding", values: Mapping[int, torch.Tensor]) -> Captured | None:
        """Captures the program for rounded sizes, or notes why that cannot be done."""
        pad = LandingPad([Landing(s, tuple(v.shape), v.dtype) for s, v in values.items()], self._place)
        pad.fill(values)
        given = self._table[:]
        for slot, tensor in zip(self._states.values(), self._held, strict=True):
            given[slot] = tensor
        for slot, view in pad.views.items():
            given[slot] = view

        def body() -> list[Any]:
            own = given[:]
            pad.land()
            self._advance(self._steps, own, dict(rounding.rounded))
            return own

        try:
            outputs = list(self.program.outputs.values())
            return self.graphs.add(rounding.key, pad, body, outputs, lambda: list(self._arenas.values()))
        except torch.OutOfMemoryError:
            raise
        except (QontextError, RuntimeError) as error:
            self.graphs.reason = f"capture failed: {str(error).splitlines()[0]}"
            return None


@dataclass(frozen=True)
class _Rounding:
    """Sizes as they are and rounded, by symbol, and the shapes of static tensors, by slot."""

    key: Key
    sizes: dict[str, int]
    rounded: dict[str, int]
    shapes: dict[int, tuple[int, ...]]


def _symbols(shape: Shape) -> set[str]:
    return {s for d in shape if isinstance(d, Dim) for s in d.symbols}


def _padded(value: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """An input of rounded sizes: zeros behind what was given, so that further rows bring no token."""
    if value.shape == shape:
        return value
    padded = value.new_zeros(shape)
    padded[tuple(slice(n) for n in value.shape)] = value
    return padded
