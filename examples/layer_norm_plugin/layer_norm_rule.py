"""A fusion rule of the user's: every LayerNorm of a model becomes the plugin.

    qontext.build(model, plugins=[LAYER_NORM], rules=[RULE], log=print)

The rule is `early`: it sees the graph in normal form, where every layer norm, however it was exported, is one
LayerNorm node, and before qontext would join that node with the addition in front of it.
"""

from dataclasses import dataclass

import onnx_ir as ir
from layer_norm_plugin import LAYER_NORM

from qontext.fusion.rewriter import Rewriter
from qontext.fusion.rule import Conditions, Rule


@dataclass(frozen=True)
class Found:
    """What `rewrite` needs."""

    x: ir.Value
    weight: ir.Value
    bias: ir.Value


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    """Says what was found, or refuses with a reason that reports show."""
    seen = Conditions(node)
    seen.holds(rewriter.is_ours(node, "LayerNorm"), "this is no layer norm")
    x = seen.found(rewriter.input(node, 0), "it has no input")
    rank = rewriter.rank(x)
    seen.holds(rank == 3, f"its input has {rank} axes, the plugin takes 3")
    weight = seen.found(rewriter.input(node, 1), "it has no weight")
    bias = seen.found(rewriter.input(node, 2), "it has no bias")
    constant = rewriter.constant(weight) is not None and rewriter.constant(bias) is not None
    seen.holds(constant, "its weight or bias is computed at run time")
    return Found(x, weight, bias)


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    """Puts the plugin in place of the node; its weights are the same numbers with axes [1, 1, E]."""
    rows = []
    for value in (found.weight, found.bias):
        tensor = rewriter.constant(value)
        assert tensor is not None
        rows.append(rewriter.derived("three axes", [value], f"{value.name}.row", lambda t=tensor: t.reshape(1, 1, -1)))
    epsilon = rewriter.attributes(node)["epsilon"]
    rewriter.replace(RULE.name, [node], LAYER_NORM, [found.x, *rows], {"epsilon": epsilon}, [node.outputs[0]])


RULE = Rule(
    name="layer_norm_plugin",
    doc="LayerNorm becomes LayerNormPlugin.",
    anchors=frozenset({"LayerNorm"}),
    check=check,
    rewrite=rewrite,
    why="before LayerNorm is joined with the residual addition",
    early=True,
)
