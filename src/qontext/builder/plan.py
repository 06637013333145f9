"""From a graph to steps: a kernel for every node, and memory laid out once.

Every kernel of an operator is asked `supports(call)`; where several can, they are timed (`tune.py`) and the fastest
is taken. What was refused, and why, and what the runners-up needed, stays in the plan for reports.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import onnx_ir as ir
import torch

from ..errors import GraphError
from ..graph.attributes import values_of
from ..graph.dims import Dim, Shape
from ..graph.ledger import ids_of, origin_of
from ..ops.call import Bound, Call, Device, Kernel, Operand, Result, Tensors
from ..ops.declare import Op
from ..ops.device import device_of
from ..ops.eager import candidates
from ..ops.infer import Inference
from ..ops.standard.catalogue import lookup as standard_lookup
from ..ops.standard.declare import Context
from .memory import Layout, Lifetime, plan_memory
from .parts import Parts, divide, parts_of
from .ranges import Contest, Range, contest, decide
from .slots import Slots
from .tune import Timings, Tuner

_SHAPE_ONLY = {("UnpackTokens", "mask")}


@dataclass
class Step:
    """One kernel launch of a program.

    inputs, outputs: slots (positions in the table of values), -1 for an absent operand
    binds:     (output, axis, symbol): sizes that are known only after this step has run
    release:   slots whose last reader this step is
    host:      positions of inputs whose elements are read on the host, or of which only the shape matters
    token_wise: its operator treats every row by itself
    updates:   (output, input): that output is that input, written in place
    ranges:    where the choice depends on the number of `rows`, the kernel of each range; `kernel` is the last one's
    timings:   microseconds of each candidate that was timed, fastest first
    replays:   a run is one call of the kernel library that can be made again (`Kernel.replays`)
    """

    name: str
    op: str
    kernel: str
    run: Bound
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    call: Call
    ids: tuple[int, ...]
    origin: str
    writes_out: bool = False
    binds: tuple[tuple[int, int, str], ...] = ()
    release: tuple[int, ...] = ()
    timings: Timings = ()
    refused: tuple[tuple[str, str], ...] = ()
    host: Set[int] = frozenset()
    token_wise: bool = False
    updates: tuple[tuple[int, int], ...] = ()
    ranges: tuple[Range, ...] = ()
    rows: Dim | None = None
    replays: bool = False

    @property
    def kernels(self) -> str:
        """The kernel, or those of all ranges, as text."""
        names = [f"{r.kernel} (to {r.most})" for r in self.ranges[:-1]]
        return ", ".join([*names, self.kernel])


@dataclass
class Program:
    """A graph made ready to run.

    slots:     number of values; `constants` fills the first ones
    layout:    places of the arena, by slot
    parts:     on a GPU, what runs before, in and after a CUDA graph
    """

    name: str
    graph: ir.Graph
    device: Device
    steps: list[Step]
    inputs: dict[str, int]
    outputs: dict[str, int]
    constants: dict[int, torch.Tensor]
    operands: list[Operand | None]
    layout: Layout
    input_shapes: dict[str, Shape] = field(default_factory=dict)
    parts: Parts | None = None

    @property
    def slots(self) -> int:
        return len(self.operands)


def plan_program(
    name: str,
    graph: ir.Graph,
    inference: Inference,
    device: Device,
    tuner: Tuner,
) -> Program:
    """Chooses kernels and lays out memory. Raises GraphError for a node that nothing can run."""
    slots = Slots(inference, device)
    inputs = {str(v.name): slots.of(v) for v in graph.inputs}
    bound = {s for v in graph.inputs for d in (inference.shape(v) or ()) if isinstance(d, Dim) for s in d.symbols}
    nodes = [n for n in graph if not (n.op_type == "Constant" and n.domain == "")]
    drafts = []
    for node in nodes:
        draft = _draft(node, inference, device, slots, bound)
        draft.step.binds = _binds(node, inference, bound)
        drafts.append(draft)
    tuner.prepare([d.contest.jobs() for d in drafts if d.contest is not None])
    steps = [_settled(draft, tuner) for draft in drafts]
    outputs = {str(v.name): slots.of(v) for v in graph.outputs}
    parts = None
    if device.type != "cpu":
        head, core, tail = divide(steps, slots.operands, slots.constants.keys())
        twins = [_twin(nodes[i], steps[i], inference, slots) for i in head]
        steps = [steps[i] for i in (*head, *core, *tail)]
        counts = (len(head), len(core))
        parts = parts_of(steps, counts, twins, slots.operands, slots.constants.keys(), outputs)
    kept = set(outputs.values()) | set(inputs.values()) | set(slots.constants)
    lifetimes = _release(steps, kept)
    # Arenas of a GPU belong to the core, whose sizes may be rounded up.
    fixed = None if parts is None else range(parts.head, parts.head + parts.core)
    layout = plan_memory(_placeable(steps, slots.operands, kept, lifetimes, fixed))
    shapes = {str(v.name): inference.shape(v) or () for v in graph.inputs}
    return Program(name, graph, device, steps, inputs, outputs, slots.constants, slots.operands, layout, shapes, parts)


def _twin(node: ir.Node, step: Step, inference: Inference, slots: Slots) -> Step:
    """A step planned for the host, for inputs that lie there: a small one, not worth the timing of its kernels."""
    every = {s for o in slots.operands if o is not None for d in o.shape or () if isinstance(d, Dim) for s in d.symbols}
    bound = every - {s for _, _, s in step.binds}
    twin = _settled(_draft(node, inference, device_of("cpu"), slots, bound), Tuner(repeats=0))
    twin.binds = step.binds
    return twin


@dataclass
class _Draft:
    """A step whose kernel is not chosen yet; one of a standard operator has no choice.

    contest: the candidates by size, on devices where sizes are told apart
    able:    the candidates for any size
    """

    step: Step
    op: Op | None = None
    contest: Contest | None = None
    able: list[Kernel] = field(default_factory=list)


def _draft(node: ir.Node, inference: Inference, device: Device, slots: Slots, bound: Set[str]) -> _Draft:
    op = op_of(node, inference.ops)
    hosted = _host_inputs(node, op, device)
    given = tuple(slots.of(v, i in hosted) for i, v in enumerate(node.inputs))
    produced = tuple(slots.of(v) for v in node.outputs)
    call = Call(
        node.op_type,
        tuple(None if s < 0 else slots.operands[s] for s in given),
        tuple(None if s < 0 else slots.operands[s] for s in produced),
        values_of(node),
        device,
    )
    name = node.name or node.op_type
    ids, origin = ids_of(node), origin_of(node)
    if op is None:
        run = _standard(node, inference.opset, call)
        return _Draft(
            Step(name, node.op_type, f"onnx.{node.op_type}", run, given, produced, call, ids, origin, host=hosted)
        )
    call = replace(
        call,
        inputs=call.inputs + (None,) * (len(op.inputs) - len(call.inputs)),
        outputs=call.outputs + (None,) * (len(op.outputs) - len(call.outputs)),
        attributes=op.complete_attributes(call.attributes),
    )
    able, refused = candidates(op, call)
    late = not _sized(call, bound)
    if late:
        why = "its results have sizes that are known only after it has run, it needs them before"
        refused += [(k.name, why) for k in able if k.writes_out]
        able = [k for k in able if not k.writes_out]
    step = Step(
        name,
        node.op_type,
        "",
        _unbound,
        given + (-1,) * (len(op.inputs) - len(given)),
        produced + (-1,) * (len(op.outputs) - len(produced)),
        call,
        ids,
        origin,
        refused=tuple(refused),
        host=hosted,
        token_wise=op.token_wise,
        updates=tuple((o, i) for o, i in op.updated_inputs.items() if call.outputs[o] is not None),
    )
    return _Draft(step, op, None if device.type == "cpu" else contest(op, call, late), able)


def _unbound(inputs: Tensors, out: Tensors | None = None) -> Result:
    raise AssertionError("a step runs before its kernel was chosen")


def _settled(draft: _Draft, tuner: Tuner) -> Step:
    """The step with the kernel that the tuner chooses, or one for each range of rows."""
    step = draft.step
    if draft.op is None:
        return step
    if draft.contest is not None:
        ranges = decide(draft.contest, tuner)
        last = ranges[-1]
        step.kernel, step.run, step.timings = last.kernel, last.run, last.timings
        step.writes_out = any(r.writes_out for r in ranges)
        if len(ranges) > 1:
            step.ranges, step.rows = ranges, draft.contest.rows
        return step
    kernel, step.timings = tuner.choose(draft.op, step.call, draft.able)
    step.kernel, step.run, step.writes_out = kernel.name, kernel.bind(step.call), kernel.writes_out
    step.replays = kernel.replays is not None and kernel.replays(step.call)
    return step


def _host_inputs(node: ir.Node, op: Op | None, device: Device) -> Set[int]:
    """Positions of the inputs that are read on the host, and of those of which only the shape matters."""
    if device.type == "cpu":
        return frozenset(range(len(node.inputs)))
    if op is not None:
        return {i for i, p in enumerate(op.inputs) if p.host or (op.name, p.name) in _SHAPE_ONLY}
    standard = standard_lookup(node.op_type)
    return frozenset() if standard is None else set(standard.shape_operands)


def _standard(node: ir.Node, opset: int, call: Call) -> Bound:
    op = standard_lookup(node.op_type)
    if op is None or node.domain not in ("", "ai.onnx"):
        raise GraphError(f"node {node.name!r}: nothing can run {node.domain or 'ai.onnx'}::{node.op_type}")
    context = Context(opset, tuple(o is not None for o in call.outputs))
    attributes = call.attributes
    implementation = op.run

    def run(inputs: Tensors, out: Tensors | None = None) -> Result:
        return implementation(inputs, attributes, context)

    return run


def _sized(call: Call, bound: Set[str]) -> bool:
    """True when every wanted output has a shape that the sizes known so far give."""
    for operand in call.outputs:
        if operand is not None and (operand.shape is None or None in operand.shape):
            return False
        dims = operand.shape or () if operand is not None else ()
        if any(isinstance(d, Dim) and not set(d.symbols) <= bound for d in dims):
            return False
    return True


def _binds(node: ir.Node, inference: Inference, bound: set[str]) -> tuple[tuple[int, int, str], ...]:
    found = []
    for i, value in enumerate(node.outputs):
        if value.name == "":
            continue
        for axis, dim in enumerate(inference.shape(value) or ()):
            if isinstance(dim, Dim) and dim == Dim((dim.symbols[0],)) and dim.symbols[0] not in bound:
                bound.add(dim.symbols[0])
                found.append((i, axis, dim.symbols[0]))
    return tuple(found)


def _release(steps: Sequence[Step], kept: set[int]) -> dict[int, int]:
    """Sets `release` of every step; returns the last reader of every slot."""
    last: dict[int, int] = {}
    for index, step in enumerate(steps):
        for s in (*step.inputs, *step.outputs):
            if s >= 0:
                last[s] = index
    for index, step in enumerate(steps):
        mine = {s for s in (*step.inputs, *step.outputs) if s >= 0 and last[s] == index and s not in kept}
        step.release = tuple(sorted(mine))
    return last


def _placeable(
    steps: Sequence[Step],
    operands: Sequence[Operand | None],
    kept: set[int],
    last: Mapping[int, int],
    among: range | None = None,
) -> list[Lifetime]:
    """Lifetimes of values that kernels write into the arena: those of the steps `among`, or of all.

    The result of a standard operator may be a view of its input (Reshape, Transpose), so its readers count as readers
    of that input too. Kernels of ours never return views, but for what they update.
    """
    end = dict(last)
    for step in reversed(steps):
        outputs, inputs = _views(step)
        reach = max((end[s] for s in outputs), default=0)
        for s in inputs:
            end[s] = max(end[s], reach)
    lives = []
    viewed_outputs = _viewed_by_outputs(steps, kept)
    for index, step in enumerate(steps):
        if not step.writes_out or (among is not None and index not in among):
            continue
        updated = {step.outputs[o] for o, _ in step.updates}
        for s in step.outputs:
            if s < 0 or s in kept or s in viewed_outputs or s in updated:
                continue
            operand = operands[s]
            assert operand is not None and operand.shape is not None
            lives.append(Lifetime(s, operand.shape, operand.type.torch.itemsize, index, end[s]))
    return lives


def _viewed_by_outputs(steps: Sequence[Step], outputs: set[int]) -> set[int]:
    """Slots that an output of the program may be a view of: they must outlive the run, so never in the arena."""
    reached = set(outputs)
    for step in reversed(steps):
        produced, inputs = _views(step)
        if any(s in reached for s in produced):
            reached.update(inputs)
    return reached - outputs


def _views(step: Step) -> tuple[list[int], list[int]]:
    """Slots of outputs that may be views, and of the inputs that they may be views of."""
    if step.kernel.startswith("onnx."):
        return [s for s in step.outputs if s >= 0], [s for s in step.inputs if s >= 0]
    return [step.outputs[o] for o, _ in step.updates], [step.inputs[i] for _, i in step.updates]


def op_of(node: ir.Node, ops: Mapping[str, Op]) -> Op | None:
    """The declaration of a node's operator, None for a standard one."""
    op = ops.get(node.op_type)
    return op if op is not None and op.domain == node.domain else None
