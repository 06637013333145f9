"""Running a program on a GPU: the head on the host where the inputs lie there, the core as a CUDA graph, the tail."""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch

from ..builder.parts import Parts
from ..builder.plan import Program, Step
from ..errors import DeviceError, QontextError
from ..graph.dims import Dim
from ..ops.call import Bound
from ..ops.device import current
from .buckets import Bucket, bucket_of
from .executor import Executor, Observe, _Ready
from .full import FullIndex, without_padding
from .graphs import Capture, Captured, CudaCapture, Graphs
from .landing import Landing, LandingPad
from .packed import GivenIndex, Lengths

Outputs = dict[str, torch.Tensor]
Exact = tuple[tuple[str, int], ...]
_CPU = torch.device("cpu")
_REMEMBERED = 4096


class GpuExecutor(Executor):
    """Runs one program on a GPU.

    Args:
        program: planned for a GPU, so that it has parts.
        graphs: False launches every step by itself.
        capturer: makes what captures graphs.
    """

    def __init__(self, program: Program, graphs: bool = True, capturer: Callable[[], Capture] | None = None):
        super().__init__(program)
        assert program.parts is not None
        self.parts: Parts = program.parts
        head, core = self.parts.head, self.parts.core
        self._head, self._tail = self._steps[:head], self._steps[head + core :]
        self._core = self._steps[head : head + core]
        self._host_head = [_Ready(step, program, _CPU) for step in self.parts.host]
        tail = program.steps[head + core :]
        self._full_tail = self._ready(without_padding(tail, FullIndex(self._place)), self._place)
        self._full_heads = self._heads(FullIndex(self._place), FullIndex(_CPU))
        self._given = GivenIndex(self._place), GivenIndex(_CPU)
        self._packed_heads = self._heads(*self._given)
        self._mask = next((s.inputs[0] for s in program.steps[:head] if s.op == "PackIndex"), -1)
        self._guarded = _guards_ids(program)
        self.graphs = Graphs(capturer or CudaCapture)
        self.graphs.reason = "graphs were switched off" if not graphs else self._hindrance()
        self.last: Captured | None = None  # the graph of the last run
        self._seen: set[Exact] = set()
        self._stream: Any = None
        self._finished = torch.cuda.Event() if self._place.type == "cuda" else None

    def _ready(self, steps: Sequence[Step], place: torch.device) -> list[_Ready]:
        return [_Ready(step, self.program, place) for step in steps]

    def _heads(self, on_device: Bound, on_host: Bound) -> tuple[list[_Ready], list[_Ready]]:
        """The head without padding, on the device and on the host."""
        device = without_padding(self.program.steps[: self.parts.head], on_device)
        return self._ready(device, self._place), self._ready(without_padding(self.parts.host, on_host), _CPU)

    def run(
        self,
        inputs: Mapping[str, torch.Tensor],
        observe: Observe | None = None,
        check: Callable[[], None] = lambda: None,
        ones: Set[str] = frozenset(),
    ) -> dict[str, torch.Tensor]:
        """Runs the program once on the current stream.

        Args:
            inputs: all on the host, or all on the device.
            observe: as for every executor; such a run launches step by step.
            check: what has to wait for the device (ranges of ids). It is called before the results are handed out, and
                before ids are used unless the kernels that use them guard their tables.
            ones: as for every executor.
        Returns:
            The outputs on the device; they belong to the caller.
        Raises:
            DeviceError: out of memory (everything the executor holds is freed, so a smaller batch can follow), or a
                fault of the device.
        """
        return self._guard(inputs, lambda: self._run(inputs, observe, check, ones, None))

    def run_packed(
        self, inputs: Mapping[str, torch.Tensor], lengths: Lengths, check: Callable[[], None] = lambda: None
    ) -> dict[str, torch.Tensor]:
        """Runs the program once on sequences that are packed already, as every executor does."""
        return self._guard(inputs, lambda: self._run(inputs, None, check, frozenset(), lengths))

    def _guard(self, inputs: Mapping[str, torch.Tensor], run: Callable[[], Outputs]) -> Outputs:
        """Runs alone, after the run before, and turns what the device reports into errors."""
        with self._lock, torch.no_grad(), current(self.program.device):
            self._follow()
            try:
                results = run()
                self._leave()
                return results
            except torch.OutOfMemoryError as error:
                self.release()
                raise DeviceError(self._too_much(inputs)) from error
            except torch.AcceleratorError as error:
                raise DeviceError(
                    f"{self.program.device.name} reports: {str(error).splitlines()[0]}; results of this process can no "
                    "longer be trusted, start a new one"
                ) from error

    def release(self) -> None:
        """Frees graphs and arenas; the next run makes them anew."""
        self.last = None
        self.graphs.clear()
        self._arenas.clear()
        self._generation += 1
        for ready in self._steps:
            ready.views.clear()
        if self._finished is not None:
            torch.cuda.empty_cache()

    def _follow(self) -> None:
        """Lets a run on another stream wait for the one before it: they share arenas and graphs."""
        if self._stream is not None and self._stream != torch.cuda.current_stream():
            torch.cuda.current_stream().wait_event(self._finished)

    def _leave(self) -> None:
        """Marks where this run ends on its stream."""
        if self._finished is not None:
            self._stream = torch.cuda.current_stream()
            self._finished.record(self._stream)

    def _run(
        self,
        inputs: Mapping[str, torch.Tensor],
        observe: Observe | None,
        check: Callable[[], None],
        ones: Set[str],
        packed: Lengths | None,
    ) -> Outputs:
        parts = self.parts
        table, sizes = self._start(inputs)
        on_host = all(t.device.type == "cpu" for t in inputs.values())
        full = packed is not None or (observe is None and self._is_full(table, ones))
        heads = (self._head, self._host_head)
        if packed is not None:
            heads = self._packed_heads
            self._given[on_host].lengths = packed
        elif full:
            heads = self._full_heads
        self._advance(heads[on_host], table, sizes, observe)
        if packed is not None:
            sizes[str(parts.batch)] = packed.sequences
        if not self._guarded:
            check()
        key = None if observe is not None else self._key(table, sizes)
        captured = None if key is None else self.graphs.get(key) or self._capture(key, table, sizes)
        self.last = captured
        if captured is None:
            self._bring((*parts.core_inputs, *parts.tail_inputs), table)
            self._advance(self._core, table, sizes, observe)
        else:
            self._replay(captured, table, sizes if isinstance(key, Bucket) else None)
        self._advance(self._full_tail if full else self._tail, table, sizes, observe)
        results = {name: table[slot] for name, slot in self.program.outputs.items()}
        if self._guarded:
            check()
        fixed = self._own_memory() if captured is None else captured.memory
        return {n: t.clone() if t.untyped_storage().data_ptr() in fixed else t for n, t in results.items()}

    def _is_full(self, table: Sequence[Any], ones: Set[str]) -> bool:
        """The mask is known to be all ones: it was filled in, or lies on the host and says so."""
        if self._mask < 0:
            return False
        mask = table[self._mask]
        if mask is None:
            return False
        filled = any(self.program.inputs[name] == self._mask for name in ones)
        return filled or (mask.device.type == "cpu" and bool(mask.all()))

    def _own_memory(self) -> set[int]:
        """Addresses of the arenas, which the next run overwrites."""
        return {arena.untyped_storage().data_ptr() for arena in self._arenas.values()}

    def _replay(self, captured: Captured, table: list[Any], sizes: Mapping[str, int] | None) -> None:
        """Fills the static tensors, replays, and puts what the tail reads into the table.

        Args:
            sizes: of this run, to cut results out of rounded tensors; None when the graph was captured for them.
        """
        views = captured.pad.views
        captured.pad.fill({slot: table[slot] for slot in views})
        captured.replay()
        captured.replays += 1
        for slot, tensor in captured.outputs.items():
            table[slot] = tensor if sizes is None else self._cut(slot, tensor, sizes)
        for slot in self.parts.tail_inputs:
            if slot in views:
                table[slot] = views[slot][: len(table[slot])] if views[slot].dim() else views[slot]
        self._bring(self.parts.tail_inputs, table)

    # -- graphs ------------------------------------------------------------------------------------------------

    def _hindrance(self) -> str:
        """Why the core can never be captured; "" when nothing is known against it."""
        for ready in self._core:
            if ready.step.kernel.startswith("reference."):
                return f"{ready.step.name} runs on its reference, which reads values back"
        slots = set(self.parts.host_inputs)
        if len(slots) > 1 or any(self._operand(s).shape != () for s in slots):
            return "kernels read more on the host than the longest sequence"
        return "no step works on packed tokens" if not self._core else ""

    def _key(self, table: Sequence[Any], sizes: Mapping[str, int]) -> Bucket | Exact | None:
        """The graph that fits this run; None when it is launched step by step."""
        parts = self.parts
        if self.graphs.reason:
            return None
        if parts.tokens is None or parts.batch is None:
            exact = tuple(sorted(sizes.items()))
            if exact in self._seen:
                return exact
            if len(self._seen) > _REMEMBERED:
                self._seen.clear()
            self._seen.add(exact)  # captured when it comes again: unpadded sizes are many
            return None
        longest = max((int(table[s]) for s in parts.host_inputs), default=1)
        return bucket_of(sizes[parts.tokens], sizes[parts.batch], longest)

    def _capture(self, key: Bucket | Exact, table: Sequence[Any], sizes: Mapping[str, int]) -> Captured | None:
        """Captures the core for a bucket, or notes why that cannot be done."""
        parts = self.parts
        rounded = dict(sizes)
        if isinstance(key, Bucket):
            rounded |= {str(parts.tokens): key.tokens, str(parts.batch): key.sequences}
        movable = dict.fromkeys(s for s in parts.core_inputs if s not in parts.host_inputs)
        movable |= dict.fromkeys(s for s in parts.tail_inputs if self._rounds(s))
        pad = LandingPad([self._landing(s, rounded) for s in movable], self._place)
        pad.fill({s: table[s] for s in movable})
        given = self._table[:]
        for slot, view in pad.views.items():
            given[slot] = view
        for slot in parts.host_inputs:
            longest = key.length if isinstance(key, Bucket) else table[slot]
            given[slot] = torch.as_tensor(longest, dtype=self._operand(slot).type.torch)

        def body() -> list[Any]:
            own = given[:]
            self._advance(self._core, own, dict(rounded))
            return own

        try:
            return self.graphs.add(key, pad, body, parts.core_outputs, lambda: list(self._arenas.values()))
        except torch.OutOfMemoryError:
            raise
        except (QontextError, RuntimeError) as error:
            self.graphs.reason = f"capture failed: {str(error).splitlines()[0]}"
            return None

    def _operand(self, slot: int) -> Any:
        operand = self.program.operands[slot]
        assert operand is not None
        return operand

    def _rounds(self, slot: int) -> bool:
        """Whether a value of the tail has the sizes of a bucket (token_index has, a padded mask has not)."""
        shape = self._operand(slot).shape
        known = {self.parts.tokens, self.parts.batch}
        return shape is not None and all(isinstance(d, int) or set(d.symbols) <= known for d in shape)

    def _landing(self, slot: int, sizes: Mapping[str, int]) -> Landing:
        operand = self._operand(slot)
        shape = tuple(d.value(sizes) if isinstance(d, Dim) else d for d in operand.shape)
        first = operand.shape[0] if operand.shape else None
        return Landing(slot, shape, operand.type.torch, isinstance(first, Dim) and first.offset == 1)

    # -- tensors -----------------------------------------------------------------------------------------------

    def _bring(self, slots: Sequence[int], table: list[Any]) -> None:
        """Moves values that lie on the host to the device, but for those that are read on the host."""
        for slot in slots:
            if slot not in self.parts.host_inputs and table[slot] is not None:
                table[slot] = table[slot].to(self._place, non_blocking=True)

    def _cut(self, slot: int, tensor: torch.Tensor, sizes: Mapping[str, int]) -> torch.Tensor:
        """The front of a static tensor that this run filled."""
        for axis, dim in enumerate(self._operand(slot).shape):
            if isinstance(dim, Dim):
                tensor = tensor.narrow(axis, 0, dim.value(sizes))
        return tensor

    def _too_much(self, inputs: Mapping[str, torch.Tensor]) -> str:
        shapes = ", ".join(f"{name} {list(t.shape)}" for name, t in inputs.items())
        free = "" if self._finished is None else f"{torch.cuda.mem_get_info()[0] / 1e9:.1f} GB are free now; "
        return (
            f"{self.program.device.name} has too little memory for a run on {shapes}; {free}split the batch, or build "
            "with a smaller max_tokens. The engine has let go of its buffers and can be used on"
        )


def _guards_ids(program: Program) -> bool:
    """Ids outside their tables do no harm before they are refused: only our embedding kernel looks anything up."""
    lookups = ("Gather", "GatherElements", "GatherND", "EmbedLayerNorm", "OneHot", "ScatterElements", "ScatterND")
    return all(s.kernel.startswith("triton.") for s in program.steps if s.op in lookups)


def executor_for(program: Program, graphs: bool = True) -> Executor:
    """The executor of a program, by where it was planned to run; `graphs` as for `GpuExecutor`."""
    return Executor(program) if program.parts is None else GpuExecutor(program, graphs)
