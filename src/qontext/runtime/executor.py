"""Running a program: one loop over its steps, for encoders and decoders alike."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import Any

import torch

from ..builder.plan import Program, Step
from ..builder.ranges import pick
from ..errors import InputError, QontextError
from ..graph.dims import Dim
from ..ops.call import Bound
from .full import without_padding
from .packed import GivenIndex, Lengths, batch_symbol
from .replay import stretches_of

_REMEMBERED = 64  # sizes a step remembers views for

Observe = Callable[[Step, tuple[torch.Tensor | None, ...]], None]


class Executor:
    """Runs one program; owns its arenas. Runs of one executor are serialised by a lock.

    Args:
        program: the plan.
    """

    def __init__(self, program: Program):
        self.program = program
        self._arenas: dict[tuple[str, ...], torch.Tensor] = {}
        self._table: list[Any] = [None] * program.slots
        for slot, tensor in program.constants.items():
            self._table[slot] = tensor
        self._generation = 0  # counts reallocations of arenas, which make remembered views stale
        self._lock = threading.Lock()
        self._place = program.device.torch
        self._steps = [_Ready(step, program, self._place) for step in program.steps]
        self._stretches = stretches_of(program)

    @property
    def arena_bytes(self) -> int:
        """Bytes that the arenas hold now."""
        return sum(a.numel() for a in self._arenas.values())

    def run(
        self,
        inputs: Mapping[str, torch.Tensor],
        observe: Observe | None = None,
        check: Callable[[], None] = lambda: None,
        ones: Set[str] = frozenset(),
        fixed: Set[str] = frozenset(),
    ) -> dict[str, torch.Tensor]:
        """Runs the program once.

        Args:
            inputs: a tensor for every input of the program, checked by the caller.
            observe: called after each step with the step and its outputs (taps of calibration, compare, profile).
                The tensors are only valid during the call.
            check: what is still to be checked of the inputs; called as soon as that needs no waiting.
            ones: inputs that are known to hold nothing but ones.
            fixed: inputs that hold the same numbers whenever they have the same shape.
        Returns:
            The outputs by name, in declared order; they share no memory with the arena.
        """
        check()
        with self._lock, torch.no_grad():
            table, sizes = self._start(inputs)
            if observe is None:
                self._hurry(table, sizes)
            else:
                self._advance(self._steps, table, sizes, observe)
            return {name: table[slot] for name, slot in self.program.outputs.items()}

    def laps(self, inputs: Mapping[str, torch.Tensor]) -> list[float]:
        """Seconds of every step of a run as it goes, those of replayed stretches by the clock of the kernel library."""
        taken: list[float] = []
        with self._lock, torch.no_grad():
            self._hurry(*self._start(inputs), taken)
        return taken

    def run_packed(
        self, inputs: Mapping[str, torch.Tensor], lengths: Lengths, check: Callable[[], None] = lambda: None
    ) -> dict[str, torch.Tensor]:
        """Runs the program once on sequences that are packed already.

        Args:
            inputs: as for `run`, one row that holds all tokens (see `packed.py`).
        Returns:
            The outputs by name, those of tokens in one row too.
        """
        check()
        with self._lock, torch.no_grad():
            index = GivenIndex(self._place)
            index.lengths = lengths
            steps = [_Ready(s, self.program, self._place) for s in without_padding(self.program.steps, index)]
            table, sizes = self._start(inputs)
            first = next(i for i, r in enumerate(steps) if r.step.op == "PackIndex") + 1
            self._advance(steps[:first], table, sizes)
            sizes[batch_symbol(self.program)] = lengths.sequences
            self._advance(steps[first:], table, sizes)
            arenas = {a.untyped_storage().data_ptr() for a in self._arenas.values()}
            results = {name: table[slot] for name, slot in self.program.outputs.items()}
            return {n: t.clone() if t.untyped_storage().data_ptr() in arenas else t for n, t in results.items()}

    def _start(self, inputs: Mapping[str, torch.Tensor]) -> tuple[list[Any], dict[str, int]]:
        """The table of values with constants and inputs, and the sizes that the inputs say."""
        program = self.program
        table = self._table[:]
        sizes: dict[str, int] = {}
        for name, slot in program.inputs.items():
            tensor = inputs[name]
            table[slot] = tensor
            for dim, size in zip(program.input_shapes[name], tensor.shape, strict=True):
                if isinstance(dim, Dim):
                    sizes[dim.symbols[0]] = size
        return table, sizes

    def _hurry(self, table: list[Any], sizes: dict[str, int], laps: list[float] | None = None) -> None:
        """Runs all steps; stretches of sizes that were run before are replayed. `laps` gets the seconds of each."""

        def advance(steps: Sequence["_Ready"]) -> None:
            self._advance(steps, table, sizes, None if laps is None else _clock(laps))

        done = 0
        for stretch in self._stretches:
            advance(self._steps[done : stretch.first])
            steps = self._steps[stretch.first : stretch.last]
            stretch.run(table, tuple(sizes.values()), lambda: self._generation, partial(advance, steps), laps)
            done = stretch.last
        advance(self._steps[done:])

    def _advance(
        self, steps: Sequence["_Ready"], table: list[Any], sizes: dict[str, int], observe: Observe | None = None
    ) -> None:
        """Runs some steps: values go into `table`, sizes that only a run knows into `sizes`."""
        for ready in steps:
            step = ready.step
            given = [table[s] if s >= 0 else None for s in step.inputs]
            run, writes_out = (step.run, step.writes_out) if step.rows is None else ready.chosen(sizes)
            out = self._outputs(ready, sizes) if writes_out else None
            if out is not None and step.updates:
                out = list(out)
                for output, source in step.updates:
                    out[output] = given[source]
            try:
                result = run(given, out)
            except QontextError as error:
                raise type(error)(f"{step.name} ({step.kernel}): {error.message}") from error
            except (torch.OutOfMemoryError, torch.AcceleratorError):
                raise
            except (RuntimeError, IndexError, ValueError, TypeError) as error:
                raise _unfit(step, given, error) from error
            if isinstance(result, torch.Tensor):
                table[step.outputs[0]] = result
                results: tuple[torch.Tensor | None, ...] = (result,)
            else:
                results = result
                for s, tensor in zip(step.outputs, result, strict=False):
                    if s >= 0:
                        table[s] = tensor
            for output, axis, symbol in step.binds:
                bound = results[output]
                assert bound is not None
                sizes[symbol] = bound.shape[axis]
            if observe is not None:
                observe(step, results)
            for s in step.release:
                table[s] = None

    def _outputs(self, ready: "_Ready", sizes: Mapping[str, int]) -> list[torch.Tensor | None]:
        """Tensors for the outputs of a step: views of the arena, or fresh memory for what the caller keeps."""
        key = tuple([sizes[s] for s in ready.symbols])
        views = ready.views.get(key)
        if views is None or ready.generation != self._generation:
            if len(ready.views) >= _REMEMBERED or ready.generation != self._generation:
                ready.views.clear()
            views = [None if t is None else self._make(t, sizes, ready.place) for t in ready.targets]
            if ready.reusable:
                ready.generation = self._generation
                ready.views[key] = views
        return views

    def _make(self, target: "_Target", sizes: Mapping[str, int], place: torch.device) -> torch.Tensor:
        shape = [d if isinstance(d, int) else d.value(sizes) for d in target.shape]
        if target.size_class is None:
            return torch.empty(shape, dtype=target.dtype, device=place)
        units = 1
        for symbol in target.size_class:
            units *= sizes[symbol]
        arena = self._arena(target.size_class, units)
        start = target.offset * units
        count = target.dtype.itemsize
        for size in shape:
            count *= size
        return arena[start : start + count].view(target.dtype).view(shape)

    def _arena(self, size_class: tuple[str, ...], units: int) -> torch.Tensor:
        need = self.program.layout.bytes_per_unit[size_class] * units
        arena = self._arenas.get(size_class)
        if arena is None or arena.numel() < need:
            arena = torch.empty(need, dtype=torch.uint8, device=self._place)
            self._arenas[size_class] = arena
            self._generation += 1
        return arena


def _unfit(step: Step, given: Sequence[torch.Tensor | None], error: Exception) -> InputError:
    """The error for a step that fails on what the inputs of the run led to: an index beyond a table, odd shapes."""
    shapes = ", ".join("none" if t is None else str(list(t.shape)) for t in given)
    return InputError(
        f"{step.name} ({step.kernel}) cannot compute what these inputs lead to, of shapes {shapes}: {error}"
    )


class _Target:
    """Where one output of a step goes."""

    __slots__ = ("dtype", "offset", "shape", "size_class")

    def __init__(self, program: Program, slot: int):
        operand = program.operands[slot]
        assert operand is not None and operand.shape is not None
        self.dtype = operand.type.torch
        self.shape: tuple[int | Dim, ...] = tuple(d for d in operand.shape if d is not None)
        place = program.layout.places.get(slot)
        self.size_class = None if place is None else place.size_class
        self.offset = 0 if place is None else place.offset_per_unit


def _clock(laps: list[float]) -> Observe:
    """Adds the seconds since the step before, or since now, to `laps` after every step."""
    since = time.perf_counter()

    def lap(step: Step, results: tuple[torch.Tensor | None, ...]) -> None:
        nonlocal since
        now = time.perf_counter()
        laps.append(now - since)
        since = now

    return lap


class _Ready:
    """A step with the targets of its outputs, and views of the arena remembered by the sizes they were made for."""

    __slots__ = ("generation", "place", "reusable", "step", "symbols", "targets", "views")

    def __init__(self, step: Step, program: Program, place: torch.device):
        self.step = step
        self.place = place
        updated = {o for o, _ in step.updates}
        places = [-1 if o in updated else s for o, s in enumerate(step.outputs)]
        self.targets = [_Target(program, s) if s >= 0 else None for s in places] if step.writes_out else []
        shapes = [t.shape for t in self.targets if t is not None]
        self.symbols = tuple(
            dict.fromkeys(s for shape in shapes for d in shape if isinstance(d, Dim) for s in d.symbols)
        )
        self.reusable = all(t is None or t.size_class is not None for t in self.targets)
        self.views: dict[tuple[int, ...], list[torch.Tensor | None]] = {}
        self.generation = -1

    def chosen(self, sizes: Mapping[str, int]) -> tuple[Bound, bool]:
        """The kernel for the rows of this run, and whether it fills given tensors."""
        assert self.step.rows is not None
        found = pick(self.step.ranges, self.step.rows.value(sizes))
        return found.run, found.writes_out
