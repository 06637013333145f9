"""Memory of a program at one size: weights, the arena, and what is alive after every step."""

from collections.abc import Mapping
from typing import Any

from ..builder.plan import Program
from ..builder.samples import Size
from ..graph.dims import Dim
from ..ops.call import Operand


def memory_of(program: Program, size: Size, known: Mapping[str, int]) -> dict[str, Any]:
    """Bytes by kind.

    Args:
        size: numbers for symbols that `known` does not have.
        known: sizes that a run has measured.
    Returns:
        `weights`, `arena` (laid out for all steps), `inputs`, `live` (one number a step: values that somebody still
        needs once it has run), `peak`, `planned` (what of the peak lies in the arena) and `caches` (state that the
        program updates in place).
    """
    weights = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in program.constants.values()}
    sizes = {s: known.get(s, size.of(s)) for s in _symbols(program)}
    bytes_of = {
        slot: _bytes(operand, sizes)
        for slot, operand in enumerate(program.operands)
        if operand is not None and slot not in program.constants
    }
    inputs = set(program.inputs.values())
    outputs = set(program.outputs.values())
    updates = [(step.outputs[o], step.inputs[i]) for step in program.steps for o, i in step.updates]
    caches = sum(bytes_of.get(source, 0) for _, source in updates)
    bytes_of.update((output, 0) for output, _ in updates)  # the memory of what was updated
    alive = set(inputs)
    live = []
    for step in program.steps:
        alive |= {s for s in step.outputs if s >= 0}
        live.append(sum(bytes_of.get(s, 0) for s in alive))
        alive -= {s for s in step.release if s not in outputs and s not in inputs}
    return {
        "weights": sum(weights.values()),
        "arena": program.layout.total_bytes(sizes),
        "inputs": sum(bytes_of.get(s, 0) for s in inputs),
        "live": live,
        "peak": max(live, default=0),
        "planned": sum(bytes_of.get(s, 0) for s in program.layout.places),
        "caches": caches,
        "sizes": sizes,
    }


def _symbols(program: Program) -> set[str]:
    dims = [d for o in program.operands if o is not None for d in o.shape or ()]
    return {s for d in dims if isinstance(d, Dim) for s in d.symbols}


def _bytes(operand: Operand, sizes: Mapping[str, int]) -> int:
    count = 1
    for dim in operand.shape or ():
        count *= dim if isinstance(dim, int) else dim.value(sizes) if isinstance(dim, Dim) else 1
    return count * operand.type.bits // 8
