"""From a model to planned programs: clone, fuse, pack, lower, plan."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import onnx_ir as ir
import torch

from ..dtypes import by_name
from ..errors import ArgumentError, DeviceError, all_problems
from ..fusion.catalogue import FOR_A_GPU, FOR_THE_HOST, RULES, fuse
from ..fusion.rule import Rule
from ..graph.ledger import Ledger, origin_of
from ..graph.model import Model
from ..graph.text import note_types
from ..graph.verify import verify
from ..ops.call import Device
from ..ops.declare import Op
from ..ops.device import current, device_of, parse_device
from ..ops.gpu_facts import gpu_facts, gpu_problem
from ..ops.gpu_launch import FP8_CAPABILITY, capability_of
from ..ops.infer import Inference
from ..ops.operators import operators
from ..ops.standard.catalogue import lookup as standard_lookup
from ..packing.remove_padding import PackingReport, remove_padding
from ..quant.attention import attention_nodes, quantise_attention
from ..quant.linears import quantise_linears
from ..quant.recipe import QuantLayer, Recipe, int8_share
from ..quant.results import hold_results
from .plan import Program, plan_program
from .precision import EIGHT_BITS, PRECISIONS, Narrowed, lower_precision, with_readers
from .tune import Tuner

Log = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How to build.

    precision:   "fp32", "bf16" or "fp16": the type of weights and activations between inputs and outputs; "int8" or
                 (on a GPU) "fp8" for linear layers that multiply eight bits
    device:      "cpu", "cuda", or "cuda:1" for the second GPU
    max_tokens:  largest batch x length of one run (memory is laid out for any size up to it)
    max_length:  longest sequence; None takes the model's own limit
    packing:     remove padding where the model allows it
    tune:        time rival kernels; False takes the first that can
    graphs:      on a GPU, replay CUDA graphs over bucketed sizes
    keep:        layers (nodes, or the modules they come from; `*` stands for anything) that stay in float32, or in the
                 type of the rest when the precision is int8 or fp8
    rest:        with int8 and fp8, the type of what is no linear layer: "fp16" on a GPU; "bf16" where the processor
                 multiplies it, else "fp32"
    apart:       on a GPU, no linear layer is joined with the norm behind it, or given x in eight bits, so that taps see
                 what layers read and give
    """

    precision: str = "fp32"
    device: str = "cpu"
    max_tokens: int = 131_072
    max_length: int | None = None
    packing: bool = True
    tune: bool = True
    graphs: bool = True
    keep: tuple[str, ...] = ()
    rest: str = ""
    apart: bool = False

    @property
    def joined(self) -> bool:
        """Whether linear layers and the norms behind them become one step."""
        return parse_device(self.device)[0] != "cpu" and self.precision not in EIGHT_BITS and not self.apart

    @property
    def floats(self) -> str:
        """The precision of what is not quantised."""
        return self.rest or self.precision


@dataclass
class Compiled:
    """A model made ready: what an engine runs, saves and reports.

    ledger:    of the program "encode"
    kept:      nodes of it that stay in float32, and why
    quantised: what became of its linear layers, when the precision is int8 or fp8
    errors:    relative RMS error of every output against the float engine on the samples, when there were any
    states:    of the other programs: inputs that hold a cache -> the outputs that these become
    ledgers:   of the other programs
    """

    settings: Settings
    programs: dict[str, Program]
    ledger: Ledger
    packing: PackingReport
    fused: ir.Graph | None
    tuner: Tuner
    plugins: tuple[Op, ...] = ()
    kept: dict[str, str] = field(default_factory=dict)
    quantised: list[QuantLayer] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    seconds: float = 0.0
    states: dict[str, str] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)


def known_nodes(ops: dict[str, Op]) -> Callable[[ir.Node], bool]:
    """Says whether a node's operator can be run at all."""

    def known(node: ir.Node) -> bool:
        op = ops.get(node.op_type)
        if op is not None and op.domain == node.domain:
            return True
        return node.domain in ("", "ai.onnx") and standard_lookup(node.op_type) is not None

    return known


def updates_of(ops: dict[str, Op]) -> Callable[[ir.Node], dict[int, int]]:
    """Declared aliasing of a node: {output index: input index}."""

    def updates(node: ir.Node) -> dict[int, int]:
        op = ops.get(node.op_type)
        if op is None or op.domain != node.domain:
            return {}
        return op.updated_inputs

    return updates


def check_settings(settings: Settings) -> None:
    """Raises ArgumentError for settings that cannot be used, DeviceError for a device that is missing or unfit."""
    problems = []
    if settings.precision not in (*PRECISIONS, *EIGHT_BITS):
        problems.append(f"precision is {settings.precision!r}, allowed: {', '.join((*PRECISIONS, *EIGHT_BITS))}")
    if settings.rest and settings.rest not in PRECISIONS:
        problems.append(f"rest is {settings.rest!r}, allowed: {', '.join(PRECISIONS)}")
    if settings.max_tokens < 1:
        problems.append(f"max_tokens is {settings.max_tokens}, it must be at least 1")
    if settings.max_length is not None and settings.max_length < 1:
        problems.append(f"max_length is {settings.max_length}, it must be at least 1")
    try:
        kind, index = parse_device(settings.device)
    except ArgumentError as error:
        kind, index = "cpu", 0
        problems.append(error.message)
    if settings.precision == "fp8" and kind == "cpu" and not problems:
        problems.append(
            "precision is fp8 and device is 'cpu', which multiplies no 8-bit floats; use device='cuda' with a GPU of "
            "compute capability 8.9 or later, or precision='int8'"
        )
    if problems:
        raise ArgumentError(all_problems("build", problems))
    check_device(kind, index)
    if settings.precision == "fp8":
        check_fp8(device_of(settings.device))


def check_fp8(device: Device) -> None:
    """Raises DeviceError for a GPU that multiplies no 8-bit floats."""
    found = capability_of(device)
    if found < FP8_CAPABILITY:
        raise DeviceError(
            f"precision 'fp8' was asked for, but {device.name} has compute capability {found // 10}.{found % 10}, "
            "products of 8-bit floats need 8.9 (Ada) or later; use precision='int8' or 'fp16'"
        )


def check_device(kind: str, index: int) -> None:
    """Raises DeviceError when that GPU is missing, too old, or driven by software that does not fit."""
    problem = gpu_problem(gpu_facts(), index) if kind == "cuda" else None
    if problem is not None:
        raise DeviceError(f"device '{kind}:{index}' was asked for, but {problem}")


def check_rules(rules: Sequence[Rule]) -> None:
    """Raises ArgumentError for rules of the user's that are none, or whose names are taken."""
    if isinstance(rules, Rule) or not isinstance(rules, Sequence):
        raise ArgumentError(f"build: rules is a {type(rules).__name__}, expected a list of rules: rules=[rule]")
    names = {rule.name for rule in (*RULES, *FOR_THE_HOST, *FOR_A_GPU)}
    problems = []
    for rule in rules:
        if not isinstance(rule, Rule):
            problems.append(f"{rule!r} is a {type(rule).__name__}, expected a qontext.fusion.rule.Rule")
        elif rule.name in names:
            problems.append(f"rule {rule.name!r} exists already; reports need different names")
        else:
            names.add(rule.name)
    if problems:
        raise ArgumentError(all_problems("build: rules", problems))


def compile_model(
    model: Model,
    settings: Settings,
    plugins: Sequence[Op] = (),
    rules: Sequence[Rule] = (),
    tuner: Tuner | None = None,
    log: Log = lambda text: None,
    overflowing: Mapping[str, float] | None = None,
    recipe: Recipe | None = None,
) -> Compiled:
    """Builds the programs of a model; the model itself is left as it was.

    Args:
        overflowing: nodes whose results are too large for the precision, with the largest magnitude that was seen.
        recipe: how to quantise when the precision is int8 or fp8; without one, all layers with scales of every row.
    Raises:
        ArgumentError, DeviceError, PluginError: settings that cannot be used.
        GraphError: a graph that breaks a rule or that nothing can run.
    """
    start = time.perf_counter()
    check_settings(settings)
    ops = operators(plugins)
    check_rules(rules)
    lines: list[str] = []

    def say(text: str) -> None:
        lines.append(text)
        log(text)

    graph = model.graph.clone(allow_outer_scope_values=False)
    imported = model.ledger
    ledger = Ledger(
        dict(imported.sources),
        dict(imported.folded),
        dict(imported.removed),
        list(imported.fusions),
        list(imported.refusals),
    )
    known, updates = known_nodes(ops), updates_of(ops)
    verify(graph, known, updates, after="import")
    inference = inferred(graph, ops)
    note_types(ledger, graph)
    before = graph.num_nodes()
    fuse(graph, ledger, inference, rules, say, for_a_gpu=settings.joined)
    ledger.check(graph)
    verify(graph, known, updates, after="fusion")
    say(f"fused {before} nodes into {graph.num_nodes()}")
    fused = graph.clone(allow_outer_scope_values=False)
    inference = inferred(graph, ops)
    if settings.packing:
        packing = remove_padding(graph, inference, ledger, model.attention_mask)
    else:
        packing = PackingReport("packing was switched off")
    say(f"padding: {packing.reason or f'{packing.packed} nodes run on packed tokens'}")
    ledger.check(graph)
    kept = kept_nodes(graph, settings, overflowing or {})
    for name, reason in kept.items():
        say(f"stays in float32: {name} ({reason})")
    narrowed: Narrowed = {}
    fixed = fixed_operands(ops)
    layers = quantised(graph, settings, recipe or Recipe(), say)
    lower_precision(graph, settings.floats, kept, fixed, narrowed=narrowed)
    verify(graph, known, updates, after="packing and lowering")
    tuner = tuner or Tuner(repeats=7 if settings.tune else 0)
    programs = {"encode": planned("encode", graph, ops, settings.device, tuner, say)}
    ledgers: dict[str, Ledger] = {}
    states = {*model.states, *model.states.values()}
    for name, source in model.programs.items():
        other = source.clone(allow_outer_scope_values=False)
        verify(other, known, updates, after="import")
        own = Ledger()
        own.adopt(other)
        inference = inferred(other, ops)
        note_types(own, other)
        fuse(other, own, inference, rules, say)
        own.check(other)
        quantised(other, settings, recipe or Recipe(), say)
        lower_precision(other, settings.floats, with_readers(other, kept), fixed, states, narrowed)
        verify(other, known, updates, after="lowering")
        programs[name] = planned(name, other, ops, settings.device, tuner, say)
        ledgers[name] = own
    seconds = time.perf_counter() - start
    steps = sum(len(p.steps) for p in programs.values())
    say(f"planned {steps} steps, timed {tuner.timed} calls")
    done = Compiled(settings, programs, ledger, packing, fused, tuner, tuple(plugins), kept, layers, {}, lines, seconds)
    done.states, done.ledgers = dict(model.states), ledgers
    return done


def kept_nodes(graph: ir.Graph, settings: Settings, overflowing: Mapping[str, float]) -> dict[str, str]:
    """Nodes that stay in float32, with the reason. Raises ArgumentError for names in `keep` that no node has."""
    if settings.precision == "fp32" or settings.precision in EIGHT_BITS:
        return {}
    limit = torch.finfo(by_name(PRECISIONS[settings.precision]).torch).max
    reasons = {
        name: f"reaches {most:.3g}, {settings.precision} ends at {limit:.3g}" for name, most in overflowing.items()
    }
    reasons = asked_to_stay(graph, settings.keep) | reasons
    return {name: reasons.get(name, "reads what such a layer gives") for name in with_readers(graph, reasons)}


def asked_to_stay(graph: ir.Graph, keep: Sequence[str]) -> dict[str, str]:
    """Nodes that a pattern of `keep` names, with the reason. Raises ArgumentError for patterns that name none."""
    reasons: dict[str, str] = {}
    unknown = []
    for wanted in keep:
        found = [str(n.name) for n in graph if _is_called(n, wanted)]
        reasons |= {name: f"{wanted!r} was asked to stay" for name in found if name not in reasons}
        if not found:
            unknown.append(f"no layer is called {wanted!r}; explain(engine) lists the names")
    if unknown:
        raise ArgumentError(all_problems("build: keep", unknown))
    return reasons


def _is_called(node: ir.Node, wanted: str) -> bool:
    """Whether a name, or a pattern with `*`, is that of a node or of a module that it lies in."""
    origin = origin_of(node)
    modules = [origin[:i] for i, c in enumerate(origin) if c == "."] + [origin]
    return any(fnmatchcase(name, wanted) for name in (node.name or "", *modules))


def quantised(graph: ir.Graph, settings: Settings, recipe: Recipe, say: Log) -> list[QuantLayer]:
    """Turns linear layers into eight-bit ones when the precision asks for it; says what became of each.

    Raises ArgumentError for patterns of `keep` that name no linear layer, and for weights that have no scale.
    """
    kind = EIGHT_BITS.get(settings.precision)
    if kind is None:
        return []
    asked = asked_to_stay(graph, settings.keep)
    named = {str(n.name) for n in graph if n.op_type == "Linear"}
    if recipe.attention:
        named |= {str(n.name) for n in attention_nodes(graph)}
    idle = [w for w in settings.keep if not named & asked_to_stay(graph, [w]).keys()]
    if idle:
        what = "linear layer or attention" if recipe.attention else "linear layer"
        problems = [f"{w!r} names no {what}, and nothing else becomes {settings.precision}" for w in idle]
        raise ArgumentError(all_problems("build: keep", problems))
    place = device_of(settings.device).torch
    recipe = replace(recipe, kept={**recipe.kept, **asked}, kind=kind, place=place)
    layers = quantise_linears(graph, recipe)
    attention = quantise_attention(graph, recipe) if recipe.attention else []
    on_a_gpu = parse_device(settings.device)[0] != "cpu"
    held = hold_results(graph, [*layers, *attention]) if on_a_gpu and not settings.apart else 0
    for layer in (*layers, *attention):
        if layer.kept:
            say(f"stays in {settings.floats}: {layer.name} ({layer.kept})")
    done = sum(not layer.kept for layer in layers)
    say(f"{settings.precision}: {done} of {len(layers)} linear layers, {int8_share(layers):.1%} of their operations")
    if on_a_gpu:
        say(f"{held} of them read eight bits that the operator in front has written")
    if recipe.attention:
        say(f"{settings.precision}: {sum(not layer.kept for layer in attention)} of {len(attention)} attentions")
    return [*layers, *attention]


def fixed_operands(ops: Mapping[str, Op]) -> Callable[[ir.Node, int], bool]:
    """Says whether an operand has one dtype by declaration (a scale in float32), whatever the others have."""

    def fixed(node: ir.Node, index: int) -> bool:
        op = ops.get(node.op_type)
        return op is not None and op.domain == node.domain and op.inputs[index].dtype not in op.types

    return fixed


def planned(name: str, graph: ir.Graph, ops: dict[str, Op], device: str, tuner: Tuner, say: Log) -> Program:
    """The program of a graph on a device of this machine; what went wrong while tuning is said.

    Raises DeviceError when its memory cannot hold the weights.
    """
    where = device_of(device)
    told = len(tuner.messages)
    try:
        with current(where):
            program = plan_program(name, graph, inferred(graph, ops), where, tuner)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"{where.name} has too little memory to build: {str(error).splitlines()[0]} "
            "Free some, or build with a lower precision"
        ) from error
    tuner.save()
    for message in tuner.messages[told:]:
        say(message)
    return program


def inferred(graph: ir.Graph, ops: dict[str, Op]) -> Inference:
    """A finished inference of a graph. Raises GraphError for contradicting shapes."""
    inference = Inference(ops, graph.opset_imports.get("", 23))
    inference.run(graph)
    return inference
