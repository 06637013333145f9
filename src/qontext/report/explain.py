"""Explain: what was fused, what was not and why, which kernel runs each step, and how far it is from the ceiling.

Everything is data first (`Explanation.data` is JSON-able); text and pages are made from the data alone.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..builder.plan import Program
from ..builder.samples import Size
from ..engine import Engine
from ..errors import ArgumentError
from ..graph.model import Model
from ..ops.operators import operators
from ..quant.recipe import int8_share
from ..runtime.ceilings import ceilings_of
from ..runtime.executors import executor_for
from ..runtime.inputs import Inputs
from ..runtime.profile import profile, sample_run_inputs
from .caches import cache_rows
from .environment import environment, scrubbed
from .failure import write_page
from .graphs import accounting, node_rows, operator_counts, step_links
from .layers import assign_layers
from .memory import memory_of
from .refusals import refusal_rows
from .steps import measured_rows, plain_rows

if TYPE_CHECKING:
    from .against import Against

_MEASURE_SECONDS = 2.5


@dataclass(frozen=True)
class Explanation:
    """The report of one engine; `str()` gives it as text, `data` as plain dicts and lists."""

    data: Mapping[str, Any]

    def __str__(self) -> str:
        from .text import render

        return render(self.data)

    def beside(self, other: "Against") -> "Explanation":
        """The same report with a section about another side (see `against`)."""
        return Explanation({**self.data, "against": other.data})

    def html(self) -> str:
        """The report as one page that opens offline. Raises ArgumentError when the extra `explain` is missing."""
        from .html import page

        return page(self.data)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page. Raises ArgumentError when the file cannot be written."""
        write_page(path, self.html())


def explain(
    engine: Engine,
    batch: int = 8,
    length: int = 128,
    measure: bool = True,
    program: str | None = None,
    reference: Model | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Explanation:
    """Explains an engine.

    Args:
        engine: a built or loaded engine.
        batch, length: size of the runs that are timed (shortened to what the engine takes).
        measure: False leaves out times and shares.
        program: which program of the engine: "encode", or of a decoder "prefill" or "decode" (one step after `length`
            tokens); the first when left out.
        inputs: what is timed, as for `engine.run`; made up of the given size when left out.
        reference: the model it was built from: each step then says how far it is from what the model means.
    Raises:
        ArgumentError: no such program.
        InputError, ShapeError, DTypeError: as for `engine.run`.
    """
    compiled = engine.compiled
    name, chosen = _chosen(engine, program)
    ledger = compiled.ledgers.get(name, compiled.ledger)
    if engine.max_length:
        length = min(length, engine.max_length - (name == "decode"))
    size = Size(batch, length)
    ops = operators(compiled.plugins)
    data: dict[str, Any] = {
        "engine": Path(engine.name).name or engine.name,
        "program": name,
        "programs": list(compiled.programs),
        "task": engine.task or "",
        "precision": engine.precision,
        "device": chosen.device.name,
        "source_operators": {},
        "source_nodes": len(ledger.sources),
        "fusions": [_fusion(f, ledger.sources) for f in ledger.fusions],
        "refusals": refusal_rows(ledger.refusals),
        "folded": len(ledger.folded),
        "removed": len(ledger.removed),
        "packing": {
            "reason": compiled.packing.reason if name == "encode" else "its tokens are packed from the start",
            "packed": compiled.packing.packed,
            "left_padded": [
                {"node": n.node, "op": n.op, "reason": n.reason} for n in compiled.packing.nodes if n.reason
            ],
        },
        "quantised": {
            "precision": engine.precision,
            "rest": compiled.settings.floats,
            "share_of_operations": int8_share(compiled.quantised),
            "errors": compiled.errors,
            "layers": [asdict(layer) for layer in compiled.quantised],
        },
        "graphs": engine.graphs,
        "log": compiled.log,
        "build_seconds": compiled.seconds,
        "environment": environment(),
    }
    sizes: dict[str, int] = {}
    if measure:
        executor = executor_for(chosen, compiled.settings.graphs)
        given = _prepared(engine, name, inputs, size)
        profiled = profile(executor, ops, given, _MEASURE_SECONDS)
        ceilings = ceilings_of(chosen.device)
        sizes = profiled.sizes
        steps = measured_rows(profiled, ceilings, compiled.kept)
        data["measured"] = {
            "sizes": sizes,
            "run_us": profiled.run_us,
            "steps_us": sum(s["us"] for s in steps),
            "ceilings": {"copy_bytes_per_s": ceilings.copy_bytes_per_s, "flops_per_s": ceilings.flops_per_s},
            "arena_bytes": executor.arena_bytes,
        }
    else:
        steps = plain_rows(chosen, compiled.kept, ops, size)
    for row, link in zip(steps, step_links(chosen), strict=True):
        row |= link
    if reference is not None and name == "encode":
        from .compare import compare

        for row, compared in zip(steps, compare(reference, engine).data["rows"], strict=True):
            row["error"] = compared["error"]
    nodes = node_rows(ledger, chosen.steps)
    data["nodes"], data["steps"] = nodes, steps
    data["layers"] = assign_layers(nodes, steps)
    data["accounting"] = accounting(nodes, chosen.steps)
    data["source_operators"], data["step_operators"] = operator_counts(nodes), operator_counts(steps)
    data["caches"] = cache_rows(chosen)
    data["memory"] = memory_of(chosen, size, sizes)
    data |= {key: scrubbed(data[key]) for key in ("engine", "log", "graphs", "environment")}
    return Explanation(data)


def _prepared(engine: Engine, name: str, inputs: Mapping[str, Any] | None, size: Size) -> Mapping[str, torch.Tensor]:
    """What is timed: the caller's inputs, or made-up ones."""
    program = engine.compiled.programs[name]
    if engine.compiled.states and name != "encode":
        from .decoder_inputs import decoder_inputs

        return decoder_inputs(engine, name, size.sequences, size.length) | dict(inputs or {})
    if inputs is None:
        return sample_run_inputs(program, engine.input_rules, size.sequences, size.length)
    return Inputs(program, engine.input_rules, engine.settings.max_tokens, engine.max_length).prepare(inputs).tensors


def _chosen(engine: Engine, program: str | None) -> tuple[str, Program]:
    programs = engine.compiled.programs
    name = program or next(iter(programs))
    if name not in programs:
        raise ArgumentError(f"explain: the engine has no program {name!r}; it has {', '.join(programs)}")
    return name, programs[name]


def _fusion(fusion: Any, sources: Mapping[int, Any]) -> dict[str, Any]:
    return {
        "rule": fusion.rule,
        "after": fusion.after,
        "before": list(fusion.before),
        "node": fusion.node,
        "origin": fusion.origin,
        "note": fusion.note,
        "sources": [
            {"id": i, "op": sources[i].op_type, "origin": sources[i].origin} for i in fusion.ids if i in sources
        ],
    }
