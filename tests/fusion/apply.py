"""Applying rules in tests: every border checked, numbers compared, records at hand."""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch
from interpret import Feeds, adopted, check_border, inferred, op_counts, run_graph

from qontext.dtypes import by_name, relative_rms
from qontext.fusion.catalogue import RULES
from qontext.fusion.rewriter import Rewriter
from qontext.fusion.rule import Rule, apply_rule
from qontext.graph.ledger import Ledger

TOLERANCE = by_name("float32").tolerance


@dataclass
class Outcome:
    """A graph after rules: what is left, what was recorded, and how the numbers changed."""

    graph: ir.Graph
    ledger: Ledger
    log: list[str]
    errors: dict[str, float]

    @property
    def counts(self) -> dict[str, int]:
        return op_counts(self.graph)

    def reasons(self, rule: str) -> list[str]:
        return [r.reason for r in self.ledger.refusals if r.rule == rule]

    def node(self, op_type: str) -> ir.Node:
        """The only node of an operator."""
        found = [n for n in self.graph if n.op_type == op_type]
        assert len(found) == 1, self.counts
        return found[0]


def apply_to(graph: ir.Graph, feeds: Feeds, rules: Sequence[Rule] = RULES) -> Outcome:
    """Applies rules one by one; after each, the graph must be legal and the ledger add up."""
    before = run_graph(graph, feeds)
    names = [v.name for v in graph.outputs]
    ledger, inference, log = adopted(graph), inferred(graph), list[str]()
    rewriter = Rewriter(graph, inference, ledger)
    for rule in rules:
        apply_rule(rule, rewriter, log.append)
        check_border(graph, ledger, rule.name)
    assert [v.name for v in graph.outputs] == names
    after = run_graph(graph, feeds)
    errors = {name: _error(after[name], before[name]) for name in before}
    return Outcome(graph, ledger, log, errors)


def _error(out: torch.Tensor, ref: torch.Tensor) -> float:
    assert out.dtype == ref.dtype
    assert out.shape == ref.shape
    if not ref.dtype.is_floating_point:
        return 0.0 if torch.equal(out, ref) else float("inf")
    return relative_rms(out, ref)


def equal(outcome: Outcome, factor: float = 1.0) -> bool:
    """The numbers are the same within the tolerance of float32."""
    assert all(e <= factor * TOLERANCE for e in outcome.errors.values()), outcome.errors
    return True
