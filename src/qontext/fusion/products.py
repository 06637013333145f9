"""Products with constant matrices become Linear."""

from dataclasses import dataclass

import onnx_ir as ir
import torch

from ..dtypes import FLOATS
from ..graph.dims import text
from ..graph.ledger import origin_of
from ..ops.linear.op import OP as LINEAR
from .linear_parts import LinearParts, linear_parts, row_value
from .rewriter import Rewriter
from .rule import Conditions, Rule


@dataclass(frozen=True)
class Found:
    """x [..., K]; weight [M, K] as it stands in the graph, or to be transposed; bias [M]."""

    x: ir.Value
    weight: ir.Value
    transposed: bool
    bias: ir.Value | None
    scales: tuple[float, float]
    nodes: tuple[ir.Node, ...]


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.candidate(node.domain == "", "this is no standard product")
    return _gemm(seen, node, rewriter) if node.op_type == "Gemm" else _matmul(seen, node, rewriter)


def _matmul(seen: Conditions, node: ir.Node, rewriter: Rewriter) -> Found:
    x, w = node.inputs
    assert x is not None
    assert w is not None
    nodes, weight, transposed = [node], w, True
    turn = rewriter.producer(w, "Transpose")
    if turn is not None and turn.inputs[0] is not None and rewriter.constant(turn.inputs[0]) is not None:
        nodes.append(turn)
        weight, transposed = turn.inputs[0], False
    tensor = seen.found(rewriter.constant(weight), "both operands are computed")
    seen.holds(tensor.dim() == 2, f"the constant has shape {list(tensor.shape)}, a weight has two axes")
    seen.holds(rewriter.constant(x) is None, "both operands are constants")
    _check_types(seen, x, tensor)
    seen.holds((rewriter.rank(x) or 0) >= 1, f"the other operand has shape {text(rewriter.shape(x))}")
    return Found(x, weight, transposed, None, (1.0, 1.0), tuple(nodes))


def _check_types(seen: Conditions, x: ir.Value, weight: torch.Tensor) -> None:
    name = "?" if x.dtype is None else x.dtype.name
    names = [n for n in FLOATS if getattr(torch, n) == weight.dtype]
    seen.holds(names, f"the weight is {weight.dtype}, allowed: {', '.join(FLOATS)}")
    seen.holds(x.dtype is None or name != "DOUBLE", f"the operand is {name}")


def _gemm(seen: Conditions, node: ir.Node, rewriter: Rewriter) -> Found:
    attributes = rewriter.attributes(node)
    x, weight, addend = node.inputs[0], node.inputs[1], rewriter.input(node, 2)
    assert x is not None
    assert weight is not None
    tensor = seen.found(rewriter.constant(weight), "its second operand is computed")
    seen.holds(not attributes.get("transA", 0), "its first operand is transposed")
    _check_types(seen, x, tensor)
    transposed = not attributes.get("transB", 0)
    bias = None
    if addend is not None:
        width = tensor.shape[1] if transposed else tensor.shape[0]
        row = row_value(rewriter, addend, width)
        bias = seen.found(row, f"what it adds, {addend.name!r}, is not one constant for each of {width} features")
    scales = (float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0)))
    return Found(x, weight, transposed, bias, scales, (node,))


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    weight, bias = found.weight, found.bias
    alpha, beta = found.scales
    if found.transposed:
        weight = rewriter.derived(
            "transposed", [weight], _name(node, weight, "weight"), lambda: _matrix(rewriter, found)
        )
    if alpha != 1.0:
        weight = _times(rewriter, weight, alpha)
    if bias is not None and beta != 1.0:
        bias = _times(rewriter, bias, beta)
    rewriter.replace(RULE.name, list(found.nodes), LINEAR, [found.x, weight, bias], {}, [node.outputs[0]])


def _matrix(rewriter: Rewriter, found: Found) -> torch.Tensor:
    tensor = rewriter.constant(found.weight)
    assert tensor is not None
    return tensor.t().contiguous()


def _times(rewriter: Rewriter, value: ir.Value, factor: float) -> ir.Value:
    tensor = rewriter.constant(value)
    assert tensor is not None
    return rewriter.derived(f"times {factor!r}", [value], f"{value.name}.times_{factor:g}", lambda: tensor * factor)


def _name(node: ir.Node, weight: ir.Value, what: str) -> str:
    """The exporter's name where it has a meaning, else where the node comes from."""
    name = weight.name or ""
    if "::" in name or name.startswith(("val_", "_")) or name.isdigit():
        return f"{origin_of(node).rstrip('/')}.{what}"
    return f"{name}.transposed"


def check_rows(node: ir.Node, rewriter: Rewriter) -> tuple[LinearParts, ir.Node, ir.Node]:
    """A Linear between a Reshape to rows and one back: (the Linear, the first, the second)."""
    seen = Conditions(node)
    linear = linear_parts(rewriter, node)
    if linear is None:
        raise seen.refusal("this is no plain Linear")
    before, after = rewriter.producer(linear.x, "Reshape"), rewriter.only_consumer(linear.y)
    if before is None or before.inputs[0] is None or after is None or after.op_type != "Reshape":
        raise seen.refusal("it does not stand between two Reshapes")
    source, result = rewriter.shape(before.inputs[0]), rewriter.shape(after.outputs[0])
    rows, width = rewriter.shape(linear.x), rewriter.shape(linear.y)
    if not (source and result and rows and width) or source[-1] != rows[-1]:
        raise seen.refusal("the Reshape before it does more than join the axes before the features")
    seen.depth += 1
    fits = result == (*source[:-1], width[-1])
    seen.holds(fits, f"the Reshape after it gives {text(result)}, not {text((*source[:-1], width[-1]))}", after)
    return linear, before, after


def rewrite_rows(node: ir.Node, found: tuple[LinearParts, ir.Node, ir.Node], rewriter: Rewriter) -> None:
    linear, before, after = found
    rewriter.replace(
        ROWS.name,
        [node, before, after],
        LINEAR,
        [before.inputs[0], linear.weight, linear.bias],
        {"activation": linear.activation},
        [after.outputs[0]],
        note="without the Reshapes around it",
        at=node,
    )


RULE = Rule(
    name="linear",
    doc="MatMul with a constant matrix, with the Transpose of one, and Gemm become Linear; the weight is transposed "
    "once and shared by all that use it.",
    anchors=frozenset({"MatMul", "Gemm"}),
    check=check,
    rewrite=rewrite,
    why="attention and everything after it looks for linear layers by name",
)

ROWS = Rule(
    name="rows",
    doc="A Linear between a Reshape to rows [-1, K] and a Reshape back takes its input as it was before both.",
    anchors=frozenset({"Linear"}),
    check=check_rows,
    rewrite=rewrite_rows,
    why="after biases are in their Linear, so that nothing stands between it and the Reshape",
)
