"""Engine files (`.qx`): what goes into the sections, and back. Files are data, never code.

manifest.json  format and version numbers, precision, device, needed instruction sets, needed plugins
programs/*.onnx  the planned graphs as ONNX, weights standing as inputs that `weights.safetensors` fills
facts.json     what tasks need: configuration, input rules, settings
tuning.json    kernel timings by machine       report.json  ledger, packing, build log      tokenizer.json
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import onnx
import onnx_ir as ir
import torch

from ..errors import DeviceError, EngineFileError, PluginError, all_problems
from ..graph.ledger import Fusion, Ledger, Refusal, Source
from ..graph.model import InputRule
from ..graph.tensors import constant_of, to_onnx
from ..graph.verify import verify
from ..ops.declare import Op
from ..ops.device import device_of
from ..ops.operators import operators
from ..packing.remove_padding import Packed, PackingReport
from ..quant.recipe import QuantLayer
from ..version import __version__
from .compile import Compiled, Log, Settings, check_settings, known_nodes, planned, updates_of
from .container import Container, write_container
from .tune import Tuner

FORMAT = 1
SECTIONS = {"programs": 1, "facts": 1, "tuning": 1, "report": 1}


@dataclass(frozen=True)
class Facts:
    """What an engine is beside its programs."""

    name: str
    task: str | None
    config: dict[str, Any]
    tokenizer: str | None
    inputs: dict[str, InputRule]


def write_engine(path: str | os.PathLike[str], compiled: Compiled, facts: Facts) -> None:
    """Writes a `.qx` file. Raises EngineFileError when it cannot be written."""
    tensors: dict[str, torch.Tensor] = {}
    texts: dict[str, bytes] = {}
    settings = compiled.settings
    used = {(n.domain, n.op_type) for program in compiled.programs.values() for n in program.graph}
    needed = [p for p in compiled.plugins if (p.domain, p.name) in used]
    manifest = {
        "what": "qontext engine",
        "format": FORMAT,
        "qontext": __version__,
        "sections": SECTIONS,
        "name": facts.name,
        "precision": settings.precision,
        "device": settings.device,
        "built_on": device_of(settings.device).name,
        "needs_any_of": needed_instruction_sets(settings),
        "plugins": [{"name": p.name, "version": p.version, "domain": p.domain} for p in needed],
        "programs": list(compiled.programs),
    }
    texts["manifest.json"] = _json(manifest)
    for name, program in compiled.programs.items():
        texts[f"programs/{name}.onnx"] = _graph_bytes(program.graph, tensors)
    texts["facts.json"] = _json(
        {
            "name": facts.name,
            "task": facts.task,
            "config": facts.config,
            "inputs": {n: asdict(r) for n, r in facts.inputs.items()},
            "settings": asdict(settings),
            "states": compiled.states,
        }
    )
    texts["tuning.json"] = _json(compiled.tuner.records)
    texts["report.json"] = _json(
        {
            "ledger": asdict(compiled.ledger),
            "ledgers": {name: asdict(ledger) for name, ledger in compiled.ledgers.items()},
            "packing": asdict(compiled.packing),
            "kept": compiled.kept,
            "quantised": [asdict(layer) for layer in compiled.quantised],
            "errors": compiled.errors,
            "log": compiled.log,
        }
    )
    if facts.tokenizer is not None:
        texts["tokenizer.json"] = facts.tokenizer.encode()
    write_container(path, texts, tensors)


def read_engine(
    path: str | os.PathLike[str],
    plugins: Sequence[Op] = (),
    device: str | None = None,
    log: Log = lambda text: None,
) -> tuple[Compiled, Facts]:
    """Reads a `.qx` file and plans its programs for this machine (timings made elsewhere are made anew).

    Args:
        device: another one than the engine was built for; its programs are the same on all.
    Raises:
        DeviceError: the GPU it was built for, or that was asked for, is missing or unfit.
        EngineFileError: a damaged, foreign or newer file, or a machine without the needed instruction set.
        PluginError: plugins that are missing or of another version, all in one message.
    """
    box = Container(path)
    manifest = _section(box, "manifest.json")
    ops = operators(plugins)
    with _understood(box, "manifest.json"):
        _check_manifest(box, manifest)
        _check_plugins(manifest, plugins)
        built_on = manifest["built_on"]
        names = [(str(name), box.texts[f"programs/{name}.onnx"]) for name in manifest["programs"]]
        if "encode" not in dict(names):
            raise EngineFileError(f"{box.path.name} is damaged: it has no program 'encode', which every engine has")
    raw = _section(box, "facts.json")
    with _understood(box, "facts.json"):
        states = {str(k): str(v) for k, v in raw.get("states", {}).items()}
        settings = Settings(**{**raw["settings"], "keep": tuple(raw["settings"].get("keep", ()))})
        tokenizer = box.texts.get("tokenizer.json")
        facts = Facts(
            raw["name"],
            raw["task"],
            dict(raw["config"]),
            None if tokenizer is None else tokenizer.decode(),
            {n: InputRule(**r) for n, r in raw["inputs"].items()},
        )
    if device is not None:
        settings = replace(settings, device=device)
    try:
        with _understood(box, "facts.json"):
            check_settings(settings)
    except DeviceError as error:
        advice = "" if device else f"; or load it for the processor: load({box.path.name!r}, device='cpu')"
        raise DeviceError(f"{box.path.name} was built on {built_on}: {error.message}{advice}") from error
    report = _section(box, "report.json")
    with _understood(box, "report.json"):
        ledger, packing = _ledger(report["ledger"]), _packing(report["packing"])
        ledgers = {name: _ledger(raw) for name, raw in report.get("ledgers", {}).items()}
        kept, lines = dict(report.get("kept", {})), list(report["log"])
        layers = [QuantLayer(**layer) for layer in report.get("quantised", [])]
        errors = {str(n): float(e) for n, e in report.get("errors", {}).items()}
    here = device_of(settings.device).name
    moved = []
    if here != built_on:
        moved.append(f"built on {built_on}, loaded on {here}: kernels are chosen and timed anew")
        log(moved[0])
    timings = _section(box, "tuning.json")
    with _understood(box, "tuning.json"):
        tuner = Tuner(timings, repeats=7 if settings.tune else 0)
    programs = {}
    for name, data in names:
        graph = _graph(data, box.tensors)
        verify(graph, known_nodes(ops), updates_of(ops), after="loading")
        programs[name] = planned(name, graph, ops, settings.device, tuner, log)
    compiled = Compiled(
        settings,
        programs,
        ledger,
        packing,
        None,
        tuner,
        tuple(plugins),
        kept,
        layers,
        errors,
        lines + moved,
        states=states,
        ledgers=ledgers,
    )
    return compiled, facts


def needed_instruction_sets(settings: Settings) -> list[str]:
    """Instruction sets of which one must be there; none for fp32 (every processor multiplies bytes)."""
    if settings.device == "cpu" and settings.floats == "bf16":
        return ["avx512_bf16", "amx_bf16", "bf16"]
    return []


def _check_manifest(box: Container, manifest: Mapping[str, Any]) -> None:
    name = box.path.name
    if manifest.get("what") != "qontext engine":
        raise EngineFileError(f"{name} is a zip, but no qontext engine")
    newer = [
        f"section {s!r} has version {v}, this qontext reads up to {SECTIONS.get(s, 'none')}"
        for s, v in manifest["sections"].items()
        if v > SECTIONS.get(s, 0)
    ]
    if manifest["format"] > FORMAT or newer:
        raise EngineFileError(
            f"{name} was built by qontext {manifest['qontext']} (format {manifest['format']}), this is qontext "
            f"{__version__} (format {FORMAT}); {'; '.join(newer)} update qontext, or build it again with "
            f"`qontext build MODEL -o {name}`"
        )
    needs = manifest["needs_any_of"]
    have = device_of("cpu").capability
    if needs and have and not have & set(needs):
        raise EngineFileError(
            f"{name} computes in {manifest['precision']} and needs a processor with one of {', '.join(needs)}; "
            f"({device_of('cpu').name}) has none. Build it again with `qontext build MODEL --precision fp32 -o {name}`"
        )


def _check_plugins(manifest: Mapping[str, Any], plugins: Sequence[Op]) -> None:
    given = {p.name: p for p in plugins}
    problems = []
    for need in manifest["plugins"]:
        have = given.get(need["name"])
        if have is None:
            problems.append(
                f"operator {need['name']!r} version {need['version']} is missing; pass it as load(..., plugins=[...])"
            )
        elif have.version != need["version"] or have.domain != need["domain"]:
            problems.append(
                f"operator {need['name']!r} is version {have.version} of domain {have.domain!r}, the engine was built "
                f"with version {need['version']} of {need['domain']!r}"
            )
    if problems:
        raise PluginError(all_problems("the engine's plugins", problems))


@contextmanager
def _understood(box: Container, section: str) -> Iterator[None]:
    """Whole sections can still be of another shape: written by other hands, with hashes that fit."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise EngineFileError(
            f"{box.path.name}: {section} is not what qontext writes ({type(error).__name__}: {str(error)[:200]}); "
            "build the engine again"
        ) from error


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()


def _section(box: Container, name: str) -> Any:
    if name not in box.texts:
        raise EngineFileError(f"{box.path.name} has no {name}; it is no qontext engine")
    try:
        return json.loads(box.texts[name])
    except ValueError as error:
        raise EngineFileError(f"{box.path.name}: {name} is damaged: {error}") from error


def _graph_bytes(graph: ir.Graph, tensors: dict[str, torch.Tensor]) -> bytes:
    """The graph as ONNX bytes, its weights as further inputs; the weights go into `tensors`."""
    copy = graph.clone(allow_outer_scope_values=False)
    for name, value in list(copy.initializers.items()):
        tensor = constant_of(value)
        assert tensor is not None
        tensors[name] = tensor
        del copy.initializers[name]
        value.const_value = None
        value.meta.clear()
        copy.inputs.append(value)
    model = ir.Model(copy, ir_version=10, producer_name="qontext", producer_version=__version__)
    return ir.to_proto(model).SerializeToString(deterministic=True)


def _graph(data: bytes, tensors: Mapping[str, torch.Tensor]) -> ir.Graph:
    graph = ir.from_proto(onnx.load_model_from_string(data)).graph
    for value in list(graph.inputs):
        name = str(value.name)
        if name in tensors:
            graph.inputs.remove(value)
            value.const_value = to_onnx(tensors[name], name)
            graph.register_initializer(value)
    return graph


def _ledger(raw: Mapping[str, Any]) -> Ledger:
    return Ledger(
        {int(i): Source(**{**s, "reads": tuple(s.get("reads", ()))}) for i, s in raw["sources"].items()},
        {int(i): r for i, r in raw["folded"].items()},
        {int(i): r for i, r in raw["removed"].items()},
        [Fusion(**{**f, "ids": tuple(f["ids"]), "before": tuple(f["before"])}) for f in raw["fusions"]],
        [Refusal(**{**r, "ids": tuple(r["ids"])}) for r in raw["refusals"]],
    )


def _packing(raw: Mapping[str, Any]) -> PackingReport:
    return PackingReport(raw["reason"], [Packed(**n) for n in raw["nodes"]])
