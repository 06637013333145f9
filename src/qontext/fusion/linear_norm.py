"""A linear layer and the SkipLayerNorm behind it become LinearSkipLayerNorm, where a program is built for a GPU."""

from dataclasses import dataclass

import onnx_ir as ir

from ..ops.linear_skip_layer_norm.op import OP as LINEAR_SKIP_LAYER_NORM
from .linear_parts import LinearParts, linear_parts
from .rewriter import Rewriter
from .rule import Conditions, Rule


@dataclass(frozen=True)
class Found:
    """The layer, and what is added to its result."""

    linear: LinearParts
    skip: ir.Value


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.candidate(rewriter.is_ours(node, "SkipLayerNorm"), "this is no SkipLayerNorm of ours")
    x, skip = node.inputs[0], node.inputs[1]
    assert x is not None
    assert skip is not None
    parts = seen.found(
        linear_parts(rewriter, x.producer()), "what is normalised comes from no linear layer with constant weights"
    )
    seen.holds(parts.activation == "none", f"the linear layer ends in {parts.activation}", parts.node)
    seen.holds(rewriter.only_consumer(x) is node, f"{x.name!r} is read elsewhere too", parts.node)
    seen.holds(rewriter.input(node, 4) is None, "a bias is added between layer and norm")
    return Found(parts, skip)


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    linear = found.linear
    inputs = [linear.x, linear.weight, found.skip, rewriter.input(node, 2), rewriter.input(node, 3), linear.bias]
    attributes = {"epsilon": rewriter.attributes(node)["epsilon"]}
    rewriter.replace(RULE.name, [node, linear.node], LINEAR_SKIP_LAYER_NORM, inputs, attributes, list(node.outputs))


RULE = Rule(
    name="linear_skip_layer_norm",
    doc="A linear layer and the SkipLayerNorm that alone reads it become LinearSkipLayerNorm: with few rows the norm "
    "adds up what several programs have computed of each sum.",
    anchors=frozenset({"SkipLayerNorm"}),
    check=check,
    rewrite=rewrite,
    why="after all others, so that rules of users see linear layers and norms on every device",
)
