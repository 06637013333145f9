"""The steps of a program as rows: operator, kernel, where it comes from, time, and distance from the ceiling."""

from collections.abc import Mapping
from typing import Any

from ..builder.plan import Program, Step
from ..builder.samples import Size, numeric_call
from ..graph.dims import Dim, text
from ..ops.declare import Op
from ..runtime.ceilings import Ceilings
from ..runtime.profile import Profile, cost_of

Row = dict[str, Any]


def plain_rows(program: Program, kept: Mapping[str, str], ops: Mapping[str, Op], size: Size) -> list[Row]:
    """Rows without times; bytes and flops are counted for a size."""
    rows = []
    for step in program.steps:
        operands = [o for o in (*step.call.inputs, *step.call.outputs) if o is not None]
        symbols = {s for o in operands for d in o.shape or () if isinstance(d, Dim) for s in d.symbols}
        cost = cost_of(step, numeric_call(step.call, {s: size.of(s) for s in symbols}), ops)
        shapes = [text(o.shape) for o in step.call.outputs if o is not None]
        rows.append(_row(step, kept) | {"shapes": shapes, "bytes": cost.bytes, "flops": cost.flops})
    return rows


def measured_rows(profiled: Profile, ceilings: Ceilings, kept: Mapping[str, str]) -> list[Row]:
    """Rows with times and the share of what the machine can do at most."""
    rows = []
    for timed in profiled.steps:
        entry = _row(timed.step, kept)
        best = ceilings.best_us(timed.cost.bytes, timed.cost.flops, entry["dtype"])
        entry |= {
            "shapes": list(timed.shapes),
            "us": timed.us,
            "bytes": timed.cost.bytes,
            "flops": timed.cost.flops,
            "best_us": best,
            "share_of_ceiling": best / timed.us if timed.us else 0.0,
        }
        rows.append(entry)
    return rows


def _row(step: Step, kept: Mapping[str, str]) -> Row:
    return {
        "name": step.name,
        "op": step.op,
        "kernel": step.kernels,
        "origin": step.origin,
        "sources": list(step.ids),
        "dtype": next((o.dtype for o in step.call.outputs if o is not None), ""),
        "weight_dtype": next((o.dtype for o in step.call.inputs if o is not None and o.constant is not None), ""),
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
        "kept": kept.get(step.name, ""),
    }
