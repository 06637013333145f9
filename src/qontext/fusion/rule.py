"""A fusion rule and the loop that applies rules in order."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from ..errors import NoFusion
from .rewriter import Rewriter


@dataclass(frozen=True)
class Rule:
    """A rule.

    name:    shown in reports, for example "attention"
    doc:     one sentence: what becomes what
    anchors: op_types at which the rule starts to look (with our domain, the name of the operator)
    check:   returns what `rewrite` needs, or raises NoFusion(reason, at=node, depth=conditions that held)
    rewrite: changes the graph through the rewriter; it may still raise NoFusion before its first change
    quiet:   refusals are not recorded (rules that look at very common operators, such as Add)
    """

    name: str
    doc: str
    anchors: frozenset[str]
    check: Callable[[ir.Node, Rewriter], Any]
    rewrite: Callable[[ir.Node, Any, Rewriter], None]
    quiet: bool = False


@dataclass(frozen=True)
class Applied:
    """How often a rule applied and how long it looked."""

    rule: str
    count: int
    refused: int
    seconds: float


def apply_rules(rules: Sequence[Rule], rewriter: Rewriter, log: Callable[[str], None] | None = None) -> list[Applied]:
    """Applies each rule once to every node of the graph, in order; linear in the size of the graph."""
    done = []
    for rule in rules:
        start, count, refused = time.perf_counter(), 0, 0
        for node in list(rewriter.graph):
            if node.op_type not in rule.anchors or node.graph is None:
                continue
            try:
                found = rule.check(node, rewriter)
                before = len(rewriter.ledger.fusions)
                rule.rewrite(node, found, rewriter)
            except NoFusion as no:
                refused += 1
                if not rule.quiet:
                    at = no.at if isinstance(no.at, ir.Node) and no.at.graph is not None else node
                    rewriter.ledger.refuse(rule.name, node, no.reason + _where(at, node), no.depth)
                continue
            count += 1
            if log is not None:
                for record in rewriter.ledger.fusions[before:]:
                    log(
                        f"{rule.name}: {_swallowed(record.before)} -> {record.after}{_note(record.note)}  at {record.origin}"
                    )
        rewriter.sweep(f"nobody reads it after rule {rule.name!r}")
        done.append(Applied(rule.name, count, refused, time.perf_counter() - start))
    return done


def _where(at: ir.Node, anchor: ir.Node) -> str:
    return "" if at is anchor else f" (at {at.op_type} {at.name!r})"


def _note(note: str) -> str:
    return f" ({note})" if note else ""


def _swallowed(before: Sequence[str]) -> str:
    kinds: dict[str, int] = {}
    for kind in before:
        kinds[kind] = kinds.get(kind, 0) + 1
    listed = ", ".join(f"{n} {k}" if n > 1 else k for k, n in kinds.items())
    return f"{len(before)} operator{'s' if len(before) != 1 else ''} ({listed})"
