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
from ..ops.gpt_attention.gpu import reads_counts
from .buckets import Bucket, bucket_of
from .executor import Executor, Observe, _Ready
from .full import FullIndex, without_padding
from .graphs import MOST_GRAPHS, Capture, Captured, CudaCapture, Graphs
from .landing import Landing, LandingPad
from .packed import GivenIndex, Lengths
from .recall import Recalled, Signature, signature_of, split_landing

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
        masks = {s.inputs[0] for s in program.steps[:head] if s.op == "PackIndex"}
        self._mask = next((name for name, slot in program.inputs.items() if slot in masks), None)
        self._guarded = _guards_ids(program)
        self.graphs = Graphs(capturer or CudaCapture)
        self.graphs.reason = "graphs were switched off" if not graphs else self._hindrance()
        self.last: Captured | None = None  # the graph of the last run
        self._seen: set[Exact] = set()
        self._recalled: dict[Signature, Recalled] = {}
        # The stream of the last run, and its handle, which is cheaper to compare.
        self._stream: Any = None
        self._handle = 0
        self._on_gpu = self._place.type == "cuda"
        self._current = current(program.device)

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
        fixed: Set[str] = frozenset(),
    ) -> dict[str, torch.Tensor]:
        """Runs the program once on the current stream.

        Args:
            inputs: all on the host, or all on the device.
            observe: as for every executor; such a run launches step by step.
            check: what has to wait for the device (ranges of ids). It is called before the results are handed out, and
                before ids are used unless the kernels that use them guard their tables.
            ones, fixed: as for every executor.
        Returns:
            The outputs on the device; they belong to the caller.
        Raises:
            DeviceError: out of memory (everything the executor holds is freed, so a smaller batch can follow), or a
                fault of the device.
        """
        return self._guard(inputs, lambda: self._run(inputs, observe, check, ones, fixed))

    def run_packed(
        self, inputs: Mapping[str, torch.Tensor], lengths: Lengths, check: Callable[[], None] = lambda: None
    ) -> dict[str, torch.Tensor]:
        """Runs the program once on sequences that are packed already, as every executor does."""
        return self._guard(inputs, lambda: self._launch(inputs, None, check, None, lengths)[0])

    def _guard(self, inputs: Mapping[str, torch.Tensor], run: Callable[[], Outputs]) -> Outputs:
        """Runs alone, after the run before, and turns what the device reports into errors."""
        with self._lock, torch.no_grad(), self._current:
            self._follow()
            try:
                return run()
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
        self._recalled.clear()
        self.graphs.clear()
        self._arenas.clear()
        self._generation += 1
        for ready in self._steps:
            ready.views.clear()
        if self._on_gpu:
            torch.cuda.empty_cache()

    def _follow(self) -> None:
        """Lets a run on another stream wait for the one before it: they share arenas and graphs."""
        if not self._on_gpu:
            return
        handle = torch._C._cuda_getCurrentRawStream(self._place.index or 0)
        if self._stream is None or handle != self._handle:
            mine = torch.cuda.current_stream()
            if self._stream is not None:
                mine.wait_stream(self._stream)
            self._stream, self._handle = mine, handle

    def _run(
        self,
        inputs: Mapping[str, torch.Tensor],
        observe: Observe | None,
        check: Callable[[], None],
        ones: Set[str],
        fixed: Set[str],
    ) -> Outputs:
        """A run on a padded batch: one that is recalled, or one that is written down where it can be."""
        if observe is not None or not self._is_full(inputs, ones):
            return self._launch(inputs, observe, check, None, None)[0]
        on_host = all(t.device.type == "cpu" for t in inputs.values())
        signature = signature_of(inputs, on_host, fixed)
        known = self._recalled.get(signature)
        if known is not None and self.graphs.get(known.key) is known.captured:
            return self._again(known, inputs, check)
        results, written = self._launch(inputs, None, check, fixed, None)
        if written is not None:
            if len(self._recalled) >= MOST_GRAPHS:
                self._recalled.clear()
            self._recalled[signature] = written
        return results

    def _again(self, known: Recalled, inputs: Mapping[str, torch.Tensor], check: Callable[[], None]) -> Outputs:
        """A run that differs from the one written down in the numbers of its inputs alone."""
        if not self._guarded:
            check()
        captured = known.captured
        captured.pad.fill(known.landing(inputs), known.fixed, known)
        captured.replay()
        self.last = captured
        table = known.table[:]
        self._advance(self._full_tail, table, dict(known.sizes))
        if self._guarded:
            check()
        return {name: table[slot].clone() if shared else table[slot] for name, slot, shared in known.results}

    def _launch(
        self,
        inputs: Mapping[str, torch.Tensor],
        observe: Observe | None,
        check: Callable[[], None],
        fixed: Set[str] | None,
        packed: Lengths | None,
    ) -> tuple[Outputs, Recalled | None]:
        """A run with everything that it takes.

        Args:
            fixed: given for a batch without padding: inputs that hold the same numbers whenever the shape is the same.
            packed: given for sequences that are packed already.
        Returns:
            The outputs, and what a like run needs, where there can be one.
        """
        parts = self.parts
        table, sizes = self._start(inputs)
        on_host = all(t.device.type == "cpu" for t in inputs.values())
        full = packed is not None or fixed is not None
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
        split = None
        if captured is None:
            self._bring((*parts.core_inputs, *parts.tail_inputs), table)
            self._advance(self._core, table, sizes, observe)
        else:
            if fixed is not None:
                head = [ready.step for ready in heads[on_host]]
                split = split_landing(head, self.program.inputs, inputs, fixed, table, tuple(captured.pad.views))
            self._replay(captured, table, sizes if isinstance(key, Bucket) else None)
        before, known_sizes = table[:], dict(sizes)
        self._advance(self._full_tail if full else self._tail, table, sizes, observe)
        if self._guarded:
            check()
        held = self._own_memory() if captured is None else captured.memory
        held = held | {t.untyped_storage().data_ptr() for t in inputs.values()}
        places = [(n, s, table[s].untyped_storage().data_ptr() in held) for n, s in self.program.outputs.items()]
        results = {name: table[slot].clone() if shared else table[slot] for name, slot, shared in places}
        if captured is None or split is None or not self._tail_is_fixed(split[2], captured):
            return results, None
        return results, Recalled(key, captured, split[0], split[1], before, known_sizes, tuple(places))

    def _tail_is_fixed(self, differing: Set[int], captured: Captured) -> bool:
        """Whether all that the tail reads is static, comes out of the graph, or is the same each time.

        Of the mask that UnpackTokens is given only the shape matters, and sizes are those of the run written down.
        """
        reads = {
            s for r in self._full_tail for s in (r.step.inputs[:1] if r.step.op == "UnpackTokens" else r.step.inputs)
        }
        made = {s for r in self._full_tail for s in r.step.outputs} | set(captured.pad.views)
        outputs = set(self.program.outputs.values()) - made
        return not (reads - made | outputs) & set(differing)

    def _is_full(self, inputs: Mapping[str, torch.Tensor], ones: Set[str]) -> bool:
        """The mask is known to be all ones: it was filled in, or lies on the host and says so."""
        if self._mask is None:
            return False
        mask = inputs[self._mask]
        return self._mask in ones or (mask.device.type == "cpu" and bool(mask.all()))

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
            reason = reads_counts(ready.step.call) if ready.step.op == "GptAttention" else ""
            if reason:
                return f"{ready.step.name}: {reason}"
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
            pad.land()
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
        free = "" if not self._on_gpu else f"{torch.cuda.mem_get_info()[0] / 1e9:.1f} GB are free now; "
        return (
            f"{self.program.device.name} has too little memory for a run on {shapes}; {free}split the batch, or build "
            "with a smaller max_tokens. The engine has let go of its buffers and can be used on"
        )


def _guards_ids(program: Program) -> bool:
    """Ids outside their tables do no harm before they are refused: only our embedding kernel looks anything up."""
    lookups = ("Gather", "GatherElements", "GatherND", "EmbedLayerNorm", "OneHot", "ScatterElements", "ScatterND")
    return all(s.kernel.startswith("triton.") for s in program.steps if s.op in lookups)
