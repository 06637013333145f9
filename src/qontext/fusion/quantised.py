"""Linear layers of models that were quantised before: QuantizeLinear and DequantizeLinear around a Linear."""

from dataclasses import dataclass

import onnx_ir as ir
import torch

from ..ops.quant_linear.levels import levels_of
from ..ops.quant_linear.op import OP as QUANT_LINEAR
from .quantised_pairs import scale_of_bytes
from .rewriter import Rewriter
from .rule import Conditions, Rule


@dataclass(frozen=True)
class Found:
    nodes: tuple[ir.Node, ...]
    x: ir.Value
    scale: float
    zero: int
    levels: torch.Tensor
    weight_scale: torch.Tensor


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    back = rewriter.producer(node.inputs[0])
    seen.candidate(rewriter.is_ours(node, "Linear"), "this is no Linear")
    seen.candidate(back is not None and back.op_type == "DequantizeLinear", "its input was never quantised")
    assert back is not None
    seen.depth += 1
    into = seen.found(rewriter.producer(back.inputs[0]), "what is dequantised is an input or a constant", back)
    seen.holds(into.op_type == "QuantizeLinear", f"what is dequantised comes from {into.op_type}", back)
    scale, zero, dtype = scale_of_bytes(seen, rewriter, into, back)
    plain = all(rewriter.input(node, i) is None for i in range(4, 7))
    seen.holds(plain, "the Linear has scales already")
    weight = seen.found(rewriter.constant(node.inputs[1]), "the weight is no constant")
    seen.holds(weight.dtype == torch.float32, f"the weight is {weight.dtype}")
    found = seen.found(levels_of(weight), "the weight does not lie on 256 evenly spaced levels a row with 0 in them")
    x = into.inputs[0]
    assert x is not None
    return Found((into, back, node), x, scale, zero + (128 if dtype == torch.int8 else 0), *found)


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    weight = node.inputs[1]
    assert weight is not None
    levels = rewriter.derived("levels", [weight], f"{weight.name}.int8", lambda: found.levels)
    scales = rewriter.derived("scales of levels", [weight], f"{weight.name}.scale", lambda: found.weight_scale)
    rest = [rewriter.input(node, i) for i in (2, 3)]
    x_scale = rewriter.weight(f"{node.name}.x_scale", torch.tensor(found.scale))
    x_zero = rewriter.weight(f"{node.name}.x_zero", torch.tensor(found.zero, dtype=torch.uint8))
    rewriter.replace(
        RULE.name,
        found.nodes,
        QUANT_LINEAR,
        [found.x, levels, scales, *rest, x_scale, x_zero],
        {"activation": rewriter.attributes(node).get("activation", "none")},
        [node.outputs[0]],
        origin=[node],
    )


RULE = Rule(
    name="quantised",
    doc="A Linear whose input was quantised and whose weight lies on 256 levels becomes a QuantLinear.",
    anchors=frozenset({"Linear"}),
    check=check,
    rewrite=rewrite,
    why="takes whole linear layers: bias, activation, and Q, K and V side by side",
)
