"""Stretches of steps on the CPU that are calls of the kernel library and nothing else: noted at the first run of some
sizes, made again by one call at the next.

The arena gives a value the same place in every run of the same sizes, so the arguments of these calls are the same.
What comes from outside a stretch is a constant, the same view of the arena, or small (boundaries of sequences): of
small values the stretch has copies, which are filled anew.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..builder.plan import Program, Step
from ..errors import InputError
from ..native.library import functions
from ..native.tape import Tape, recording

_SHORTEST = 2  # steps worth a tape
_SMALL = 1 << 14  # bytes of a value that is copied
_REMEMBERED = 64  # sizes
_NO_MEMORY = 1

# What the places of values depend on beside the sizes: the state of the arenas, the number of threads.
State = tuple[int, int]


@dataclass(frozen=True)
class _Noted:
    """A tape, the values from outside that it reads (`same`: at their own place, with the address, or `copies`), its
    results; by slot."""

    tape: Tape
    same: Mapping[int, tuple[torch.Tensor, int]]
    copies: Mapping[int, torch.Tensor]
    results: Mapping[int, torch.Tensor]

    def takes(self, table: Sequence[Any]) -> bool:
        """Whether the values of a run lie where the tape reads them."""
        return all(table[s] is t and t.data_ptr() == address for s, (t, address) in self.same.items()) and all(
            table[s].shape == t.shape and table[s].dtype == t.dtype for s, t in self.copies.items()
        )


class Stretch:
    """Steps [first, last) of a program that can be replayed."""

    def __init__(self, program: Program, first: int, last: int):
        self.first, self.last = first, last
        self._steps = program.steps[first:last]
        made = {s for step in self._steps for s in step.outputs if s >= 0}
        read = {s for step in self._steps for s in step.inputs if s >= 0}
        freed = {s for step in self._steps for s in step.release}
        self._given = sorted(read - made - set(program.constants))
        self._results = sorted(made - freed)
        self._constants = [program.constants[s] for s in read & set(program.constants)]
        self._noted: dict[tuple[int, ...], _Noted | None] = {}  # None: not to be tried again
        self._state: State = (-1, -1)

    def run(
        self,
        table: list[Any],
        sizes: tuple[int, ...],
        arenas: Callable[[], int],
        advance: Callable[[], None],
        laps: list[float] | None = None,
    ) -> None:
        """Runs the steps: by their tape, or by `advance`, which is noted.

        Args:
            sizes: of this run.
            arenas: counts how often arenas were allocated anew.
            laps: gets the seconds of each step of a tape; of the others `advance` takes the time.
        Raises:
            MemoryError, InputError: a call failed. What `advance` raises.
        """
        state = (arenas(), torch.get_num_threads())
        if state != self._state:
            self._noted.clear()
            self._state = state
        if sizes not in self._noted:
            self._note(table, sizes, arenas, advance)
            return
        noted = self._noted[sizes]
        if noted is None or not noted.takes(table):
            self._noted[sizes] = None
            advance()
            return
        for slot, held in noted.copies.items():
            held.copy_(table[slot])
        failed = noted.tape.play(laps)
        if failed is not None:
            raise _failure(self._steps[failed[0]], failed[1])
        for slot, tensor in noted.results.items():
            table[slot] = tensor

    def _note(
        self, table: list[Any], sizes: tuple[int, ...], arenas: Callable[[], int], advance: Callable[[], None]
    ) -> None:
        """Runs the steps and remembers their calls, if these can be made again."""
        given = {slot: table[slot] for slot in self._given}
        copies = {slot: t.clone() for slot, t in given.items() if t.nbytes <= _SMALL}
        for slot, held in copies.items():
            table[slot] = held
        with recording() as calls:
            advance()
        if arenas() != self._state[0]:
            return  # places have changed meanwhile; the next run is noted
        if len(self._noted) >= _REMEMBERED:
            self._noted.clear()
        # One call a step, and nothing that a kernel had to copy before it could read it.
        even = all(t.is_contiguous() for t in (*given.values(), *self._constants))
        if len(calls) != len(self._steps) or not even:
            self._noted[sizes] = None
            return
        same = {slot: (t, t.data_ptr()) for slot, t in given.items() if slot not in copies}
        results = {slot: table[slot] for slot in self._results}
        self._noted[sizes] = _Noted(Tape(functions().qx_replay, calls), same, copies, results)


def _failure(step: Step, status: int) -> Exception:
    if status == _NO_MEMORY:
        return MemoryError(f"no memory for the scratch of {step.name} ({step.kernel})")
    return InputError(f"{step.name} ({step.kernel}) cannot compute what these inputs lead to: status {status}")


def stretches_of(program: Program) -> list[Stretch]:
    """The stretches of a program of at least two steps."""
    found, outside = [], set(program.outputs.values())
    first = 0
    for place in range(len(program.steps) + 1):
        if place < len(program.steps) and _may(program.steps[place], program, outside):
            continue
        if place - first >= _SHORTEST:
            found.append(Stretch(program, first, place))
        first = place + 1
    return found


def _may(step: Step, program: Program, outside: set[int]) -> bool:
    """A step whose results all lie in the arena, and that has nothing to do beside its call."""
    made = {s for s in step.outputs if s >= 0}
    placed = all(s in program.layout.places for s in made)
    plain = step.writes_out and not step.updates and not step.binds and step.rows is None
    return step.replays and plain and placed and not made & outside
