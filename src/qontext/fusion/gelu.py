"""GELU, known by what it computes: the operators around Erf or Tanh are run on sample points and compared.

Exporters write x * 0.5 * (1 + erf(x / sqrt 2)) and its tanh form with constants and factors in any order. All of them
compute the same function of one value, and that is what is asked.
"""

import math
from dataclasses import dataclass

import onnx_ir as ir
import torch
import torch.nn.functional as F

from ..dtypes import from_onnx
from ..graph.attributes import values_of
from ..ops.gelu.op import OP as GELU
from ..ops.standard.catalogue import lookup
from ..ops.standard.declare import Context
from .rewriter import Rewriter
from .rule import Conditions, Rule

_ELEMENTWISE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Neg", "Erf", "Tanh", "Sqrt", "Reciprocal", "Identity", "Sum"}
)
_SAMPLES = torch.linspace(-6, 6, 61, dtype=torch.float64)
_FARTHEST = 8  # operators from Erf or Tanh to the result, and from x to them


@dataclass(frozen=True)
class Found:
    x: ir.Value
    approximate: str
    result: ir.Value
    nodes: tuple[ir.Node, ...]


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.candidate(node.domain == "", "this is no standard operator")
    if node.op_type == "Gelu":
        assert node.inputs[0] is not None
        approximate = str(rewriter.attributes(node).get("approximate", "none"))
        return Found(node.inputs[0], approximate, node.outputs[0], (node,))
    approximate = "none" if node.op_type == "Erf" else "tanh"
    starts = _starts(rewriter, node)
    ends = _ends(rewriter, node)
    if not ends:
        raise seen.refusal("nothing is computed from it element by element")
    worst = math.inf
    for x in starts:
        for end in ends:
            run = _run(rewriter, x, end)
            if run is None:
                continue
            seen.depth = max(seen.depth, 1)
            computed, nodes = run
            error = _difference(computed, approximate)
            if error <= _tolerance(x):
                return Found(x, approximate, end, nodes)
            worst = min(worst, error)
    if worst < math.inf:
        raise seen.refusal(f"what is computed around it differs from GELU({approximate}) by at least {worst:.2g}")
    raise seen.refusal("the operators around it read more than one computed value")


def _starts(rewriter: Rewriter, node: ir.Node) -> list[ir.Value]:
    """Values that may be x, nearest first: the input of the anchor and what it is computed from element by element."""
    found: dict[ir.Value, None] = {}
    todo = [(node.inputs[0], 0)]
    while todo:
        value, far = todo.pop(0)
        if value is None or value in found or rewriter.constant(value) is not None or far > _FARTHEST:
            continue
        found[value] = None
        producer = value.producer()
        if producer is not None and producer.domain == "" and producer.op_type in _ELEMENTWISE:
            todo += [(v, far + 1) for v in producer.inputs]
    return list(found)


def _ends(rewriter: Rewriter, node: ir.Node) -> list[ir.Value]:
    """Values that may be the result: what follows the anchor element by element, nearest first."""
    found, value = list[ir.Value](), node.outputs[0]
    while len(found) < _FARTHEST:
        reader = rewriter.only_consumer(value)
        if reader is None or reader.domain != "" or reader.op_type not in _ELEMENTWISE:
            break
        value = reader.outputs[0]
        found.append(value)
    return found


def _run(rewriter: Rewriter, x: ir.Value, end: ir.Value) -> tuple[torch.Tensor, tuple[ir.Node, ...]] | None:
    """`end` as a function of x at the sample points, and the nodes between; None when it needs anything else."""
    results: dict[ir.Value, torch.Tensor] = {x: _SAMPLES}
    nodes: list[ir.Node] = []

    def value(wanted: ir.Value | None) -> torch.Tensor | None:
        if wanted is None:
            return None
        if wanted in results:
            return results[wanted]
        number = rewriter.scalar(wanted)
        if number is not None:
            return torch.tensor(number, dtype=torch.float64)
        node = wanted.producer()
        if node is None or node.domain != "" or node.op_type not in _ELEMENTWISE or len(nodes) > 2 * _FARTHEST:
            return None
        operands = [value(v) for v in node.inputs]
        if any(t is None for t in operands):
            return None
        op = lookup(node.op_type)
        assert op is not None
        result = op.run(operands, values_of(node), Context(rewriter.inference.opset))
        assert isinstance(result, torch.Tensor)
        nodes.append(node)
        results[wanted] = result
        return result

    computed = value(end)
    return None if computed is None else (computed, tuple(nodes))


def _difference(computed: torch.Tensor, approximate: str) -> float:
    wanted = F.gelu(_SAMPLES, approximate=approximate)
    return float((computed.expand_as(wanted) - wanted).abs().max()) if computed.numel() <= wanted.numel() else math.inf


def _tolerance(x: ir.Value) -> float:
    """How far constants rounded to the type of x may lead away, for arguments up to 6."""
    return 6 * (1e-6 if x.dtype is None else max(1e-6, from_onnx(x.dtype).tolerance / 10))


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    rewriter.replace(RULE.name, list(found.nodes), GELU, [found.x], {"approximate": found.approximate}, [found.result])


RULE = Rule(
    name="gelu",
    doc="The operators of a GELU, exact (around Erf) or with tanh (9 of them), in any order, and the standard Gelu "
    "become Gelu.",
    anchors=frozenset({"Erf", "Tanh", "Gelu"}),
    check=check,
    rewrite=rewrite,
    why="activation looks for it by name",
)
