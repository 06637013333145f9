"""Kernels by size: which one runs a step may depend on how many rows a run has."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph.dims import Dim, product
from ..ops.call import Bound, Call, Kernel
from ..ops.declare import Op
from ..ops.eager import candidates
from .samples import Size, sized_call
from .tune import Job, Timings, Tuner

# One sequence, a few, and batches up to where a larger one changes no choice.
SIZES = (Size(1, 128), Size(1, 384), Size(8, 128), Size(32, 128), Size(128, 128))


@dataclass(frozen=True)
class Range:
    """The kernel for runs of at most `most` rows (None: any number).

    size:    what it was chosen at
    timings: microseconds of each candidate there, fastest first
    """

    most: int | None
    kernel: str
    run: Bound
    writes_out: bool
    size: Size
    timings: Timings


@dataclass(frozen=True)
class Contest:
    """A call with the kernels that can run it at each size; `rows` counts what sizes are told apart by."""

    op: Op
    call: Call
    rows: Dim
    entries: tuple[tuple[Size, tuple[Kernel, ...]], ...]

    def jobs(self) -> list[Job]:
        """What the tuner is going to be asked."""
        return [(self.op, sized_call(self.call, size), able, size) for size, able in self.entries]


def rows_of(call: Call) -> Dim | None:
    """The product of the named sizes of the first operand that has some; None when all sizes are numbers."""
    for operand in call.inputs:
        if operand is not None and operand.constant is None and operand.shape:
            named = [d for d in operand.shape if isinstance(d, Dim)]
            if named:
                found = product(named)
                return found if isinstance(found, Dim) else None
    return None


def contest(op: Op, call: Call, late: bool) -> Contest | None:
    """The kernels for each size; None when a call has no sizes to tell apart.

    Args:
        late: kernels that write into given tensors are out.
    """
    rows = rows_of(call)
    if rows is None:
        return None
    general = {k.name for k in candidates(op, call)[0]}
    entries: list[tuple[Size, tuple[Kernel, ...]]] = []
    seen: set[int] = set()
    for size in SIZES:
        if size.value(rows) in seen:
            continue
        seen.add(size.value(rows))
        able = candidates(op, sized_call(call, size))[0]
        fit = tuple(k for k in able if k.name in general and not (late and k.writes_out))
        entries.append((size, fit))
    return Contest(op, call, rows, tuple(entries))


def decide(entered: Contest, tuner: Tuner) -> tuple[Range, ...]:
    """The kernel for every range of rows; ranges of the same kernel are joined, borders are geometric means."""
    chosen = []
    for size, able in entered.entries:
        kernel, timings = tuner.choose(entered.op, sized_call(entered.call, size), able, size)
        chosen.append((size, kernel, timings))
    ranges: list[Range] = []
    for i, (size, kernel, timings) in enumerate(chosen):
        following = chosen[i + 1] if i + 1 < len(chosen) else None
        if following is not None and following[1].name == kernel.name:
            continue
        most = None if following is None else _between(size, following[0], entered.rows)
        run = kernel.bind(entered.call)
        ranges.append(Range(most, kernel.name, run, kernel.writes_out, size, timings))
    return tuple(ranges)


def _between(a: Size, b: Size, rows: Dim) -> int:
    return int((a.value(rows) * b.value(rows)) ** 0.5)


def pick(ranges: Sequence[Range], rows: int) -> Range:
    """The range that a number of rows falls into."""
    return next(r for r in ranges if r.most is None or rows <= r.most)
