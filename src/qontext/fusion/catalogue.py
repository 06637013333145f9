"""All fusion rules, in the order in which they run, and `fuse`, which runs them."""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from ..graph.ledger import Ledger
from ..ops.infer import Inference
from . import (
    activation,
    attention,
    embedding,
    folding,
    gelu,
    leading_axes,
    linear_norm,
    mask_operand,
    masks,
    norms,
    onnx_attention,
    products,
    qkv,
    quantised,
    quantised_attention,
    skip_norm,
    tidy,
)
from .rewriter import Rewriter
from .rule import Applied, Rule, apply_rules

NORMAL_FORM: tuple[Rule, ...] = (
    folding.RULE,
    folding.SHAPES,
    tidy.RULE,
    folding.RULE,
    products.RULE,
    activation.BIAS,
    products.ROWS,
    norms.LAYER,
    norms.RMS,
    gelu.RULE,
    quantised_attention.RULE,
    attention.RULE,
    onnx_attention.RULE,
    products.ROWS,
    masks.RULE,
    tidy.PAIR,
)
"""Rules that bring a graph to normal form: every linear layer a Linear, every attention an Attention, and so on."""

MERGING: tuple[Rule, ...] = (
    qkv.RULE,
    mask_operand.RULE,
    leading_axes.RULE,
    activation.RULE,
    embedding.RULE,
    skip_norm.RULE,
)
"""Rules that join operators in normal form."""

RULES: tuple[Rule, ...] = (*NORMAL_FORM, *MERGING)

FOR_THE_HOST: tuple[Rule, ...] = (quantised.RULE,)
"""Rules towards operators that only processors have kernels for; they run last."""

FOR_A_GPU: tuple[Rule, ...] = (linear_norm.RULE,)
"""Rules that join further what a GPU launches together; they run last, and for programs of GPUs alone."""


def fuse(
    graph: ir.Graph,
    ledger: Ledger,
    inference: Inference,
    extra_rules: Sequence[Rule] = (),
    log: Callable[[str], None] | None = None,
    for_a_gpu: bool = False,
) -> list[Applied]:
    """Fuses a graph in place.

    Args:
        ledger: numbered by `Ledger.adopt`; gets a record of each application and each refusal.
        inference: one that has run over the graph; it is kept up to date.
        extra_rules: rules of the user's. Those marked `early` run between normal form and merging, the others after
            merging, before what is joined for the device alone.
        log: called with one line for each application.
        for_a_gpu: join what a GPU launches together.
    Returns:
        What each rule did, in order.
    """
    rewriter = Rewriter(graph, inference, ledger)
    early = [rule for rule in extra_rules if rule.early]
    late = [rule for rule in extra_rules if not rule.early]
    before = len(ledger.refusals)
    last = FOR_A_GPU if for_a_gpu else FOR_THE_HOST
    done = apply_rules([*NORMAL_FORM, *early, *MERGING, *late, *last], rewriter, log)
    live = {node.name for node in graph}  # what a later rule took was no miss
    ledger.refusals[before:] = [r for r in ledger.refusals[before:] if r.node in live]
    return done
