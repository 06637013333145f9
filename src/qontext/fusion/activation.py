"""What follows a linear layer and fits into it: its bias, its activation."""

from dataclasses import dataclass

import onnx_ir as ir

from ..ops.linear.op import OP as LINEAR
from .linear_parts import LinearParts, linear_parts, needs_linear, row_value
from .rewriter import Rewriter
from .rule import Conditions, Rule


@dataclass(frozen=True)
class Found:
    linear: LinearParts
    activation: str
    nodes: tuple[ir.Node, ...]
    result: ir.Value


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    attributes = rewriter.attributes(node)
    result = node.outputs[0]
    nodes: tuple[ir.Node, ...] = (node,)
    if rewriter.is_ours(node, "Gelu"):
        activation = "gelu_tanh" if attributes["approximate"] == "tanh" else "gelu_erf"
        seen.depth += 1
        seen.holds(rewriter.input(node, 1) is None, "the GELU has a bias of its own")
    else:
        seen.holds(node.domain == "", "this is no standard activation")
        activation = "relu" if node.op_type == "Relu" else "silu"
    x = node.inputs[0]
    if node.op_type == "Swish":
        alpha = attributes.get("alpha", 1.0)
        seen.holds(alpha == 1.0, f"alpha is {alpha}, a linear layer takes Swish with alpha 1 only")
    if node.op_type == "Sigmoid":
        product = rewriter.only_consumer(result)
        gated = product is not None and product.op_type == "Mul" and x in product.inputs
        seen.holds(gated, "the sigmoid is not multiplied with its own input, so it is no SiLU")
        assert product is not None
        result, nodes = product.outputs[0], (node, product)
    linear = needs_linear(seen, rewriter, x, "input of the activation")
    seen.holds(linear.activation == "none", f"the linear layer has the activation {linear.activation} already")
    others = [n.op_type for n in rewriter.consumers(linear.y) if n not in nodes]
    others += ["the caller"] if linear.y.is_graph_output() else []
    seen.holds(not others, f"what the linear layer computes is also read by {', '.join(others)}", linear.node)
    return Found(linear, activation, nodes, result)


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    part = found.linear
    rewriter.replace(
        RULE.name,
        [part.node, *found.nodes],
        LINEAR,
        [part.x, part.weight, part.bias],
        {"activation": found.activation},
        [found.result],
    )


def check_bias(node: ir.Node, rewriter: Rewriter) -> tuple[LinearParts, ir.Value]:
    seen = Conditions(node)
    seen.candidate(node.domain == "" and len(node.inputs) == 2, "this is no standard addition")
    for i in (0, 1):
        linear = linear_parts(rewriter, rewriter.producer(node.inputs[i]))
        if linear is not None and rewriter.constant(node.inputs[1 - i]) is not None:
            break
    else:
        raise seen.refusal("it does not add a constant to what a linear layer computes")
    addend = node.inputs[1 - i]
    assert addend is not None
    seen.depth += 1
    seen.holds(linear.bias is None, "the linear layer has a bias already", linear.node)
    seen.holds(linear.activation == "none", f"the activation {linear.activation} stands between", linear.node)
    same = rewriter.shape(linear.y) == rewriter.shape(node.outputs[0])
    seen.holds(same, f"adding {addend.name!r} changes the shape")
    width = (linear.weight.shape or [None])[0]
    bias = seen.found(
        row_value(rewriter, addend, width),
        f"the constant {addend.name!r} is not one number for each of {width} features",
    )
    seen.holds(bias.dtype == linear.weight.dtype, f"the bias is {bias.dtype}, the weight {linear.weight.dtype}")
    only = rewriter.only_consumer(linear.y) is node
    seen.holds(only, "what the linear layer computes without bias is read elsewhere too", linear.node)
    return linear, bias


def rewrite_bias(node: ir.Node, found: tuple[LinearParts, ir.Value], rewriter: Rewriter) -> None:
    linear, bias = found
    rewriter.replace(
        BIAS.name, [linear.node, node], LINEAR, [linear.x, linear.weight, bias], {}, [node.outputs[0]], note="bias"
    )


BIAS = Rule(
    name="bias",
    doc="A constant added to what a Linear computes becomes its bias.",
    anchors=frozenset({"Add"}),
    check=check_bias,
    rewrite=rewrite_bias,
    why="completes Linear before anything reads it as a whole",
)

RULE = Rule(
    name="activation",
    doc="Gelu (erf, tanh), Relu or SiLU right after a Linear becomes the activation of the Linear.",
    anchors=frozenset({"Gelu", "Relu", "Swish", "Sigmoid"}),
    check=check,
    rewrite=rewrite,
    why="needs Gelu in normal form and biases in their Linear",
)
