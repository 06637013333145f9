"""The graph before and after: every imported node with its fate, every step with what it reads."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..builder.plan import Program, Step
from ..graph.ledger import Ledger

Row = dict[str, Any]


def node_rows(ledger: Ledger, steps: Sequence[Step]) -> list[Row]:
    """One row an imported node: what it was, what it read, and where it went.

    `fate` is "fused" (part of a step together with others, or of another operator now), "step" (left as it was),
    "folded" (a constant now) or "removed" (nobody needs it); `step` is the position of its step; `why` says more.
    """
    at = {number: i for i, step in enumerate(steps) for number in step.ids}
    rules: dict[int, list[str]] = {}
    for fusion in ledger.fusions:
        for number in fusion.ids:
            names = rules.setdefault(number, [])
            if fusion.rule not in names:
                names.append(fusion.rule)
    rows = []
    for number, source in ledger.sources.items():
        index = at.get(number)
        if index is not None:
            alone = steps[index].ids == (number,) and steps[index].op == source.op_type
            fate, why = ("step", "") if alone else ("fused", " then ".join(rules.get(number, ())))
        elif number in ledger.folded:
            fate, why = "folded", ledger.folded[number]
        else:
            fate, why = "removed", ledger.removed.get(number, "not in the ledger")
        rows.append(
            {
                "id": number,
                "op": source.op_type,
                "name": source.name,
                "origin": source.origin,
                "type": source.type,
                "reads": list(source.reads),
                "fate": fate,
                "step": index,
                "why": why,
            }
        )
    return rows


def accounting(rows: Sequence[Row], steps: Sequence[Step]) -> dict[str, int]:
    """How many imported nodes met each fate (they add up to `imported`), and how many steps came new."""
    fates = Counter(row["fate"] for row in rows)
    counts = {fate: fates.get(fate, 0) for fate in ("fused", "step", "folded", "removed")}
    return {"imported": len(rows), **counts, "steps": len(steps), "new_steps": sum(not s.ids for s in steps)}


def step_links(program: Program) -> list[Row]:
    """For every step: the steps and inputs it reads (weights left out), and the outputs of the model it gives."""
    made: dict[int, int] = {}
    names = {slot: name for name, slot in program.inputs.items()}
    outputs: dict[int, list[str]] = {}
    for name, slot in program.outputs.items():
        outputs.setdefault(slot, []).append(name)
    rows = []
    for index, step in enumerate(program.steps):
        reads: list[int | str] = []
        for slot in step.inputs:
            found = made.get(slot, names.get(slot)) if slot >= 0 else None
            if found is not None and found not in reads:
                reads.append(found)
        rows.append(
            {"index": index, "reads": reads, "gives": [n for s in step.outputs if s >= 0 for n in outputs.get(s, ())]}
        )
        made.update({slot: index for slot in step.outputs if slot >= 0})
    return rows


def operator_counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Operators and how often they occur, the most frequent first."""
    return dict(Counter(row["op"] for row in rows).most_common())
