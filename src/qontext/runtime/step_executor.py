"""Running a program over caches on a GPU: steps of generation as CUDA graphs, contexts launched one by one.

The caches are tensors of the caller's that stay where they are and are written in place. A step of generation reads
nothing back: its counts, tables and tokens land in static tensors, sizes are rounded up (further rows bring no token,
further pages are never reached), and one graph a size is replayed. A context has too many sizes for that and is busy
long enough to hide its launches; its counts stay on the host as well, where attention reads them.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
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


class StepExecutor(GpuExecutor):
    """Runs a program that updates caches on a GPU; arguments as for `GpuExecutor`."""

    def __init__(self, program: Program, graphs: bool = True, capturer: Callable[[], Capture] | None = None):
        super().__init__(program, graphs, capturer)
        updated = {s.inputs[source] for s in program.steps for _, source in s.updates}
        self._states = {name: slot for name, slot in program.inputs.items() if slot in updated}
        self._presents = {s.outputs[output] for s in program.steps for output, _ in s.updates}
        self._brought = {name: slot for name, slot in program.inputs.items() if slot not in updated}
        self._rows = next((program.input_shapes[n][0] for n in ("query_lengths",) if n in self._brought), None)
        self._addresses: tuple[int, ...] = ()
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
        table, sizes = self._start(inputs)
        self._bring(list(self._states.values()), table)
        self.last = None
        if observe is None and not self.graphs.reason:
            self._watch([table[s] for s in self._states.values()])
            self.last = self._replayed(table, sizes)
        if self.last is None:
            self._launched(table, sizes, observe)
        return {name: table[slot] for name, slot in self.program.outputs.items()}

    def _launched(self, table: list[Any], sizes: dict[str, int], observe: Observe | None) -> None:
        """Launches step by step."""
        for slot, twin in self._twins.items():
            table[twin] = table[slot]
        self._bring(list(self._brought.values()), table)
        self._advance(self._on_host, table, sizes, observe)

    def _watch(self, states: Sequence[torch.Tensor]) -> None:
        """Lets go of graphs of other caches: they hold addresses."""
        addresses = tuple(t.data_ptr() for t in states)
        if addresses != self._addresses:
            self.graphs.clear()
            self._addresses = addresses

    def _replayed(self, table: list[Any], sizes: Mapping[str, int]) -> Captured | None:
        """Replays the graph of these sizes, captured first where there is none; None when that cannot be done."""
        rounded = self._rounded(sizes)
        key: Key = tuple(sorted(rounded.items()))
        values = {slot: self._padded(slot, table[slot], rounded) for slot in self._brought.values()}
        captured = self.graphs.get(key)
        if captured is None:
            captured = self._captured(key, table, values, rounded)
        if captured is None:
            return None
        captured.pad.fill(values)
        captured.replay()
        for slot, made in captured.outputs.items():
            table[slot] = made if slot in self._presents else self._cut(slot, made, sizes).clone()
        return captured

    def _captured(
        self, key: Key, table: Sequence[Any], values: Mapping[int, torch.Tensor], rounded: Mapping[str, int]
    ) -> Captured | None:
        """Captures the program for rounded sizes, or notes why that cannot be done."""
        pad = LandingPad([Landing(s, tuple(v.shape), v.dtype) for s, v in values.items()], self._place)
        pad.fill(values)
        given = self._table[:]
        for slot in self._states.values():
            given[slot] = table[slot]
        for slot, view in pad.views.items():
            given[slot] = view

        def body() -> list[Any]:
            own = given[:]
            pad.land()
            self._advance(self._steps, own, dict(rounded))
            return own

        try:
            outputs = list(self.program.outputs.values())
            return self.graphs.add(key, pad, body, outputs, lambda: list(self._arenas.values()))
        except torch.OutOfMemoryError:
            raise
        except (QontextError, RuntimeError) as error:
            self.graphs.reason = f"capture failed: {str(error).splitlines()[0]}"
            return None

    def _rounded(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Sizes rounded up, but for those of the caches; beams are as many as there are."""
        held = {d for n in self._states for d in self._symbols(self.program.input_shapes[n])}
        rows = set(self._rows.symbols) if isinstance(self._rows, Dim) else set()
        beams = self._symbols(self.program.input_shapes.get("cache_indirection", ())[:2])
        held |= beams | rows if beams else beams
        return {
            name: size if name in held else round_rows(size) if name in rows else power_of_two(size)
            for name, size in sizes.items()
        }

    @staticmethod
    def _symbols(shape: Shape) -> set[str]:
        return {s for d in shape if isinstance(d, Dim) for s in d.symbols}

    def _padded(self, slot: int, value: torch.Tensor, sizes: Mapping[str, int]) -> torch.Tensor:
        """An input of rounded sizes: zeros behind what was given, so that further rows bring no token."""
        shape = [d.value(sizes) if isinstance(d, Dim) else d for d in self._operand(slot).shape]
        if list(value.shape) == shape:
            return value
        padded = value.new_zeros(shape)
        padded[tuple(slice(n) for n in value.shape)] = value
        return padded
