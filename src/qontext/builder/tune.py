"""Timing candidates: which kernel is fastest for a call on this machine.

The inputs are random tensors of the call's shapes at a representative size. A timing is kept under a key that names
the machine, the versions, the threads and the call, so that equal layers are timed once and a saved record spares the
work at the next build. Timings of a GPU are kept on disk as well (`tuning_cache.py`).
"""

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..errors import InputError
from ..ops.call import Call, Device, Kernel, Operand
from ..ops.declare import Op
from ..ops.device import current
from ..ops.gpu_facts import gpu_facts
from .chain import SMALL_US, race_in_chains
from .race import bound, race_on_gpu, race_on_host
from .samples import USUAL, Size, sample_inputs
from .tuning_cache import Rows, read_timings, write_timings

Timings = tuple[tuple[str, float], ...]
Job = tuple[Op, Call, Sequence[Kernel], Size]
_FAILED = -1.0  # stands in a record for a kernel that cannot run the call
_COMPILERS = 16
_SPREAD = 1.03  # equal calls differ by that much on a machine with nothing else to do


def call_key(call: Call) -> str:
    """What two calls must share to share a timing: operator, attributes, dtypes, shapes, which operands are weights."""

    def one(operand: Operand | None) -> str:
        if operand is None:
            return "-"
        shape = "?" if operand.shape is None else ",".join(_shape_text(d) for d in operand.shape)
        return f"{operand.dtype}[{shape}]{'w' if operand.constant is not None else ''}"

    attributes = ",".join(f"{k}={_plain(v)}" for k, v in sorted(call.attributes.items()))
    return (
        f"{call.op}({';'.join(one(o) for o in call.inputs)})->({';'.join(one(o) for o in call.outputs)})|{attributes}"
    )


def _plain(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)  # files hold attributes in float32


def _shape_text(dim: object) -> str:
    return dim if isinstance(dim, str) else str(dim) if isinstance(dim, int) else "*"


def machine_key(device: Device) -> str:
    """The machine, versions and threads that a timing belongs to."""
    if device.type == "cpu":
        return f"cpu|{device.name}|torch {torch.__version__}|{torch.get_num_threads()} threads"
    facts = gpu_facts()
    return f"cuda|{device.name}|driver {facts.driver}|torch {torch.__version__}|triton {facts.triton}"


@functools.cache
def _code_of(folder: Path) -> str:
    text = b"".join(p.read_bytes() for p in sorted(folder.glob("*.py")))
    return hashlib.sha256(text).hexdigest()[:8]


def code_key(kernels: Sequence[Kernel]) -> str:
    """Changes when the code of a kernel does: it covers the folders that the kernels are written in."""
    every = [*kernels, *(part for k in kernels for part in k.made_of)]
    codes = [getattr(k.bind, "__code__", None) for k in every]
    folders = {Path(c.co_filename).parent for c in codes if c is not None}
    return "+".join(sorted(map(_code_of, folders)))


@dataclass
class Tuner:
    """Chooses kernels; remembers timings by machine and call.

    records:  {machine key: {call key: [[kernel, microseconds], ...]}}, what an engine file holds
    repeats:  timed runs of each candidate; 0 takes the first candidate without timing
    cached:   read and write the timings of GPUs on disk
    timed:    calls that were timed by this tuner
    messages: what went wrong on the way: kernels that failed, cache files that were damaged
    """

    records: dict[str, Rows] = field(default_factory=dict)
    repeats: int = 7
    cached: bool = True
    timed: int = 0
    messages: list[str] = field(default_factory=list)
    _opened: set[str] = field(default_factory=set)

    def choose(self, op: Op, call: Call, able: Sequence[Kernel], size: Size = USUAL) -> tuple[Kernel, Timings]:
        """The fastest of `able` (the reference, which stands last, only competes when it is alone).

        Of kernels that are equally fast within the spread of a measurement, the one declared first is taken, so that
        chance does not make two builds differ.

        Args:
            size: what stands for the symbols of the call while it is timed.
        """
        rivals = able[:-1] or able
        if len(rivals) == 1 or self.repeats == 0:
            return rivals[0], ()
        mine, key = self._mine(call.device), _key(call, rivals, size)
        if not _covers(mine.get(key), rivals):
            measured = self._race(op, call, rivals, size)
            if measured is None:
                return rivals[0], ()
            self.timed += 1
            mine[key] = measured
        timings = tuple((str(name), float(us)) for name, us in mine[key] if float(us) != _FAILED)
        if not timings:
            return able[-1], ()
        equal = {name for name, us in timings if us <= timings[0][1] * _SPREAD}
        return next(k for k in rivals if k.name in equal), timings

    def prepare(self, contests: Sequence[Sequence[Job]]) -> None:
        """Compiles what `choose` is going to time, in parallel, and tells how long that took.

        Args:
            contests: for each call, the jobs of all its sizes. A kernel is compiled once for a call, at the first size
                that it can run; what fails here fails again when it is timed.
        """
        wanted: dict[tuple[str, str], tuple[Kernel, Job]] = {}
        for jobs in contests:
            first = call_key(jobs[0][1])
            for job in jobs:
                _, call, able, size = job
                rivals = able[:-1] or able
                if call.device.torch.type != "cuda" or len(rivals) == 1 or not self.repeats:
                    continue
                if not _covers(self._mine(call.device).get(_key(call, rivals, size)), rivals):
                    for kernel in rivals:
                        wanted.setdefault((first, kernel.name), (kernel, job))
        samples: dict[int, list[torch.Tensor | None] | None] = {}
        for _, job in wanted.values():
            if id(job) not in samples:
                samples[id(job)] = sample_inputs(job[0], job[1], job[3])

        def compile_one(item: tuple[Kernel, Job]) -> None:
            kernel, job = item
            inputs = samples[id(job)]
            if inputs is not None:
                with torch.no_grad(), contextlib.suppress(Exception):  # told when it is timed
                    bound(kernel, job[1], inputs, job[3])()

        if wanted:
            place = next(iter(wanted.values()))[1][1].device.torch
            workers = min(_COMPILERS, os.cpu_count() or 1)
            start = time.perf_counter()
            # A new thread has no current GPU until it is told one.
            with ThreadPoolExecutor(workers, initializer=torch.cuda.set_device, initargs=(place,)) as pool:
                list(pool.map(compile_one, wanted.values()))
            seconds = time.perf_counter() - start
            self._tell(f"compiled {len(wanted)} kernels for timing in {seconds:.1f} s on {workers} threads")

    def save(self) -> None:
        """Writes the timings of GPUs to disk, when there are new ones."""
        if self.cached and self.timed:
            for machine in self._opened:
                self._tell(write_timings(machine, self.records[machine]))

    def _mine(self, device: Device) -> Rows:
        machine = machine_key(device)
        mine = self.records.setdefault(machine, {})
        if self.cached and self.repeats and device.type != "cpu" and machine not in self._opened:
            self._opened.add(machine)
            held, message = read_timings(machine)
            self._tell(message)
            for key, row in held.items():
                mine.setdefault(key, row)
        return mine

    def _race(self, op: Op, call: Call, rivals: Sequence[Kernel], size: Size) -> list[list[str | float]] | None:
        """The record of a race, fastest first; None when the call cannot be made up."""
        inputs = sample_inputs(op, call, size)
        if inputs is None:
            return None
        failures: dict[str, str] = {}
        with current(call.device), torch.no_grad():
            try:
                runs = [(k.name, bound(k, call, inputs, size)) for k in rivals]
                if call.device.torch.type == "cuda":
                    times, failures = race_on_gpu(runs, self.repeats)
                    if times and min(times.values()) < SMALL_US:
                        left = [(k, times[k.name]) for k in rivals if k.name in times]
                        times |= race_in_chains(left, call, inputs, size, self.repeats)
                else:
                    times = race_on_host(runs, self.repeats)
            except InputError:
                return None  # the made-up sizes are beyond a limit of the call (a short table of positions)
            except torch.OutOfMemoryError:
                self._tell(f"{call.op} at {size} was not timed: the device has too little memory for it")
                return None
        for name, error in failures.items():
            self._tell(f"kernel {name} failed on {call.op} at {size}: {error}")
        row: list[list[str | float]] = [[name, us] for name, us in sorted(times.items(), key=lambda m: m[1])]
        return row + [[name, _FAILED] for name in failures]

    def _tell(self, message: str) -> None:
        if message:
            self.messages.append(message)


def _key(call: Call, rivals: Sequence[Kernel], size: Size) -> str:
    key = call_key(call)
    return key if call.device.type == "cpu" else f"{size}|{code_key(rivals)}|{key}"


def _covers(row: list[list[str | float]] | None, rivals: Sequence[Kernel]) -> bool:
    return row is not None and {str(name) for name, _ in row} == {k.name for k in rivals}
