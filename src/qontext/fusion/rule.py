"""A fusion rule and the loop that applies rules in order."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import onnx_ir as ir

from ..errors import NoFusion
from ..graph.ledger import Fusion
from .rewriter import Rewriter
from .words import name_of, swallowed

T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """A rule.

    name:    shown in reports, for example "attention"
    doc:     one sentence: what becomes what
    anchors: op_types at which the rule starts to look (with our domain, the name of the operator); empty: every node
    check:   returns what `rewrite` needs, or raises NoFusion(reason, at=node, depth=conditions that held)
    rewrite: changes the graph through the rewriter; it may still raise NoFusion before its first change
    why:     why it stands where it stands in the order
    early:   for rules of the user's: run on the normal form, before our rules merge it (else after all of ours)

    A refusal at depth 0 says that the node was no candidate at all; it is not recorded.
    """

    name: str
    doc: str
    anchors: frozenset[str]
    check: Callable[[ir.Node, Rewriter], Any]
    rewrite: Callable[[ir.Node, Any, Rewriter], None]
    why: str = ""
    early: bool = False


class Conditions:
    """Counts the conditions of a rule that hold at one node, and refuses with the first that does not."""

    def __init__(self, anchor: ir.Node):
        self.anchor = anchor
        self.depth = 0

    def candidate(self, condition: object, reason: str) -> None:
        """A condition that does not count: a node that fails it before any other held was never meant."""
        if not condition:
            raise self.refusal(reason)

    def holds(self, condition: object, reason: str, at: ir.Node | None = None) -> None:
        """Raises NoFusion with `reason` unless the condition is true."""
        if not condition:
            raise self.refusal(reason, at)
        self.depth += 1

    def found(self, thing: T | None, reason: str, at: ir.Node | None = None) -> T:
        """The thing; raises NoFusion with `reason` when it is None."""
        if thing is None:
            raise self.refusal(reason, at)
        self.depth += 1
        return thing

    def refusal(self, reason: str, at: ir.Node | None = None) -> NoFusion:
        """The exception to raise here."""
        return NoFusion(reason, at or self.anchor, self.depth)


@dataclass(frozen=True)
class Applied:
    """How often a rule applied and how long it looked."""

    rule: str
    count: int
    refused: int
    seconds: float


def apply_rules(rules: Sequence[Rule], rewriter: Rewriter, log: Callable[[str], None] | None = None) -> list[Applied]:
    """Applies each rule once to every node of the graph, in order; linear in the size of the graph."""
    return [apply_rule(rule, rewriter, log) for rule in rules]


def apply_rule(rule: Rule, rewriter: Rewriter, log: Callable[[str], None] | None = None) -> Applied:
    """Applies one rule once to every node of the graph, then sweeps away what nobody reads any more."""
    start, count, refused = time.perf_counter(), 0, 0
    for node in list(rewriter.graph):
        if (rule.anchors and node.op_type not in rule.anchors) or node.graph is None:
            continue
        before = len(rewriter.ledger.fusions)
        try:
            rule.rewrite(node, rule.check(node, rewriter), rewriter)
        except NoFusion as no:
            if no.depth:
                refused += 1
                rewriter.ledger.refuse(rule.name, node, no.reason + _where(no.at, node), no.depth)
            continue
        count += 1
        if log is not None:
            for record in rewriter.ledger.fusions[before:]:
                log(sentence(record))
    rewriter.sweep(f"nobody reads it after rule {rule.name!r}")
    return Applied(rule.name, count, refused, time.perf_counter() - start)


def sentence(record: Fusion) -> str:
    """A record as a line of the build log: "gelu: 9 operators (4 Mul, ...) -> Gelu(tanh)  at encoder.layer.0"."""
    note = f"({record.note})" if record.note else ""
    return f"{record.rule}: {swallowed(record.before)} -> {record.after}{note}  at {record.origin}"


def _where(at: object, anchor: ir.Node) -> str:
    """Which node failed the condition, when it is another than the anchor and still there."""
    if not isinstance(at, ir.Node) or at is anchor or at.graph is None:
        return ""
    return f" (at {name_of(at)})"
