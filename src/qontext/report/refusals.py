"""What was not fused: one row a rule and reason, with the nearest miss and what would make it fuse."""

import re
from collections.abc import Sequence
from typing import Any

from ..fusion.catalogue import FOR_A_GPU, RULES
from ..graph.ledger import Refusal

# What a reader can do about a reason. The first pattern that is found in the sentence counts.
_ADVICE = (
    (r"cross attention|is causal, but", "nothing is amiss: it runs as Attention with separate inputs"),
    (r"an input of the graph, not", "nothing is amiss: what the block begins with is computed elsewhere"),
    (
        r"from Concat|comes from .* not from a linear layer",
        "project query, key and value from one input, without a step between; with a cache, Attention reads them apart",
    ),
    (r"scaled by|its scale", "scale the scores by one positive constant, such as 1 / sqrt(head size)"),
    (r"read elsewhere|outputs are read|are wanted", "let nobody else read the value between, or read the fused result"),
    (r"computed at run time|is computed|both operands are computed", "make the weight a constant: an initializer"),
    (r"dtype|data type|is (float|bfloat)\d*,", "use one data type for all operands, or cast before the pattern begins"),
    (r"positions, but not causally|depends on positions", "write the mask as causal, or as a sliding window"),
    (r"which is too far|tables end at", "give the position table as many rows as the longest sequence needs"),
    (
        r"mask|fill",
        "mask by a boolean, by -inf or by a finite number of at most -1000, of shape [B, S] or [B, 1, S, S]",
    ),
    (r"further outputs|gives an output", "do not ask for the values in the middle (attention weights, sums)"),
    (r"look-up|embedding|ids ", "sum plain look-ups: words, positions that count from the first token, token types"),
    (r"softmax is asked|no softmax over", "take the softmax over the last axis, in float32 or the type of the scores"),
    (r"head sizes|heads|layout|axes|projections", "split the heads as [B, S, N, D] and transpose to [B, N, S, D]"),
    (r"layer norm|epsilon|mean", "normalise over the last axis with a constant weight, bias and epsilon"),
    (
        r"activation|GELU|gelu|SiLU",
        "put the activation directly behind the linear layer; GELU, ReLU, SiLU and tanh fuse",
    ),
    (r"comes from .*not from an addition", "add the residual directly before the norm"),
    (r"Linear|linear layer|bias|product", "write the layer as x @ constant weight + constant bias"),
    (r"Transpose|Reshape|shape|size", "leave out the transpose or reshape between, or keep sizes that the inputs say"),
)
_DOCS = {rule.name: rule.doc for rule in (*RULES, *FOR_A_GPU)}


def refusal_rows(records: Sequence[Refusal]) -> list[dict[str, Any]]:
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
            "nearest": _nearest(group),
            "would_fuse": advice(reason),
            "rule_says": _DOCS.get(rule, "a rule given to build(rules=...)"),
            "source_ids": sorted({i for r in group for i in r.ids}),
        }
        for (rule, reason), group in groups.items()
    ]
    return sorted(rows, key=lambda row: (row["rule"], -row["conditions_held"]))


def _nearest(group: Sequence[Refusal]) -> str:
    best = max(group, key=lambda r: r.depth)
    held = f"{best.depth} condition{'s' if best.depth != 1 else ''} held"
    return f"{best.origin or best.node}: {held} before this one failed"


def advice(reason: str) -> str:
    """What would make it fuse, for one reason of a refusal."""
    for pattern, text in _ADVICE:
        if re.search(pattern, reason):
            return text
    return "make the failed condition true: see what the rule says"
