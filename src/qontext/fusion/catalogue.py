"""The rules in their order."""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from ..graph.ledger import Ledger
from ..ops.infer import Inference
from .rewriter import Rewriter
from .rule import Applied, Rule, apply_rules

RULES: tuple[Rule, ...] = ()


def fuse(
    graph: ir.Graph,
    ledger: Ledger,
    inference: Inference,
    extra_rules: Sequence[Rule] = (),
    log: Callable[[str], None] | None = None,
) -> list[Applied]:
    """Normalises and fuses a graph in place."""
    return apply_rules([*RULES, *extra_rules], Rewriter(graph, inference, ledger), log)
