"""What attention over caches does in a program: phase, layout of the cache, bytes that a token takes."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..builder.plan import Program, Step
from ..graph.dims import text

OPERATOR = "GptAttention"


def cache_rows(program: Program) -> list[dict[str, Any]]:
    """One row for every step of attention over a cache."""
    return [_row(step) for step in program.steps if step.op == OPERATOR]


def _row(step: Step) -> dict[str, Any]:
    qkv, past, table = step.call.inputs[0], step.call.input(1), step.call.input(5)
    lengths = step.call.input(3)
    assert qkv is not None
    attributes = step.call.attributes
    one_each = lengths is not None and qkv.shape is not None and qkv.shape[:-1] == lengths.shape
    row: dict[str, Any] = {
        "name": step.name,
        "kernel": step.kernels,
        "phase": "generation" if one_each else "context",
        "layout": "none",
        "dtype": "",
        "shape": "",
        "bytes_per_token": 0,
        "window": attributes["window"],
        "positions": attributes["position"],
    }
    if past is not None:
        each = 2 * attributes["num_kv_heads"] * attributes["head_size"]
        row |= {
            "layout": "contiguous" if table is None else "paged",
            "dtype": past.dtype,
            "shape": text(past.shape),
            "bytes_per_token": each * past.type.bits // 8,
        }
    return row


def render_caches(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text, equal ones counted; empty where there is no such step."""
    groups: dict[str, int] = {}
    for row in rows:
        held = "no cache"
        if row["layout"] != "none":
            held = f"{row['layout']} cache {row['dtype']}{row['shape']}, {row['bytes_per_token']} bytes a token"
        window = f", window {row['window']}" if row["window"] else ""
        line = f"{row['phase']} phase, {row['kernel']}, {held}, positions {row['positions']}{window}"
        groups[line] = groups.get(line, 0) + 1
    if not groups:
        return ""
    total = sum(row["bytes_per_token"] for row in rows)
    lines = ["Attention over caches", *(f"  {line}{f'  x {n}' if n > 1 else ''}" for line, n in groups.items())]
    return "\n".join([*lines, f"  all layers: {total} bytes a token"] if total else lines)
