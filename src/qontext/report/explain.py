"""Explain: what was fused, what was not and why, which kernel runs each step, and how far it is from the ceiling.

Everything is data first (`Explanation.data` is JSON-able); text is made from the data alone.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..engine import Engine
from ..graph.ledger import Refusal
from ..ops.operators import operators
from ..quant.recipe import int8_share
from ..runtime.ceilings import Ceilings, ceilings_of
from ..runtime.gpu_executor import executor_for
from ..runtime.profile import Profile, profile, sample_run_inputs


@dataclass(frozen=True)
class Explanation:
    """The report of one engine; `str()` gives it as text, `data` as plain dicts and lists."""

    data: Mapping[str, Any]

    def __str__(self) -> str:
        from .text import render

        return render(self.data)


def explain(engine: Engine, batch: int = 8, length: int = 128, measure: bool = True) -> Explanation:
    """Explains an engine.

    Args:
        engine: a built or loaded engine.
        batch, length: size of the runs that are timed (shortened to what the engine takes).
        measure: False leaves out times and shares.
    """
    compiled = engine.compiled
    program = compiled.programs["encode"]
    ledger = compiled.ledger
    data: dict[str, Any] = {
        "engine": engine.name,
        "precision": engine.precision,
        "device": program.device.name,
        "source_operators": dict(Counter(s.op_type for s in ledger.sources.values()).most_common()),
        "source_nodes": len(ledger.sources),
        "step_operators": dict(Counter(s.op for s in program.steps).most_common()),
        "steps": [],
        "fusions": [_fusion(f, ledger.sources) for f in ledger.fusions],
        "refusals": refusals(ledger.refusals),
        "folded": len(ledger.folded),
        "removed": len(ledger.removed),
        "packing": {
            "reason": compiled.packing.reason,
            "packed": compiled.packing.packed,
            "left_padded": [
                {"node": n.node, "op": n.op, "reason": n.reason} for n in compiled.packing.nodes if n.reason
            ],
        },
        "quantised": {
            "rest": compiled.settings.floats,
            "share_of_operations": int8_share(compiled.quantised),
            "errors": compiled.errors,
            "layers": [asdict(layer) for layer in compiled.quantised],
        },
        "graphs": engine.graphs,
        "log": compiled.log,
        "build_seconds": compiled.seconds,
    }
    profiled = None
    if measure:
        if engine.max_length:
            length = min(length, engine.max_length)
        executor = executor_for(program, compiled.settings.graphs)
        inputs = sample_run_inputs(program, engine.input_rules, batch, length)
        profiled = profile(executor, operators(compiled.plugins), inputs)
        ceilings = ceilings_of(program.device)
        data["measured"] = {
            "sizes": profiled.sizes,
            "run_us": profiled.run_us,
            "steps_us": sum(s.us for s in profiled.steps),
            "ceilings": {"copy_bytes_per_s": ceilings.copy_bytes_per_s, "flops_per_s": ceilings.flops_per_s},
            "arena_bytes": executor.arena_bytes,
        }
        data["steps"] = _measured_steps(profiled, ceilings)
    else:
        data["steps"] = [_step(s) for s in program.steps]
    for row in data["steps"]:
        row["kept"] = compiled.kept.get(row["name"], "")
    return Explanation(data)


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


def refusals(records: list[Refusal]) -> list[dict[str, Any]]:
    """One row a rule and reason, with the places it was met; the nearest miss (most conditions held) first."""
    groups: dict[tuple[str, str], list[Refusal]] = {}
    for record in records:
        groups.setdefault((record.rule, record.reason), []).append(record)
    rows = [
        {
            "rule": rule,
            "reason": reason,
            "conditions_held": max(r.depth for r in group),
            "count": len(group),
            "places": [r.origin or r.node for r in group[:5]],
            "source_ids": sorted({i for r in group for i in r.ids}),
        }
        for (rule, reason), group in groups.items()
    ]
    return sorted(rows, key=lambda row: (row["rule"], -row["conditions_held"]))


def _step(step: Any) -> dict[str, Any]:
    return {
        "name": step.name,
        "op": step.op,
        "kernel": step.kernels,
        "origin": step.origin,
        "sources": list(step.ids),
        "dtype": next((o.dtype for o in step.call.outputs if o is not None), ""),
        "timings_us": [list(t) for t in step.timings],
        "ranges": [
            {
                "most_rows": r.most,
                "kernel": r.kernel,
                "timed_at": str(r.size),
                "timings_us": [list(t) for t in r.timings],
            }
            for r in step.ranges
        ],
        "refused": [list(r) for r in step.refused],
    }


def _measured_steps(profiled: Profile, ceilings: Ceilings) -> list[dict[str, Any]]:
    rows = []
    for row in profiled.steps:
        entry = _step(row.step)
        best = ceilings.best_us(row.cost.bytes, row.cost.flops, entry["dtype"])
        entry |= {
            "shapes": list(row.shapes),
            "us": row.us,
            "bytes": row.cost.bytes,
            "flops": row.cost.flops,
            "best_us": best,
            "share_of_ceiling": best / row.us if row.us else 0.0,
        }
        rows.append(entry)
    return rows
