"""What the rules around Linear ask of a Linear node."""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch

from .rewriter import Rewriter
from .rule import Conditions


@dataclass(frozen=True)
class LinearParts:
    """A Linear as rules see it: weight [M, K] and bias [M] are constants."""

    node: ir.Node
    x: ir.Value
    weight: ir.Value
    bias: ir.Value | None
    activation: str

    @property
    def y(self) -> ir.Value:
        return self.node.outputs[0]


def linear_parts(rewriter: Rewriter, node: ir.Node | None) -> LinearParts | None:
    """The parts of a Linear with constant float weights, no residual and no scales; None for anything else."""
    if node is None or not rewriter.is_ours(node, "Linear"):
        return None
    x, weight, bias = node.inputs[0], node.inputs[1], rewriter.input(node, 2)
    if any(rewriter.input(node, i) is not None for i in range(3, 7)):
        return None
    if x is None or weight is None or not weight.is_initializer() or (bias is not None and not bias.is_initializer()):
        return None
    return LinearParts(node, x, weight, bias, rewriter.attributes(node).get("activation", "none"))


def merged(rewriter: Rewriter, parts: list[LinearParts], name: str) -> list[ir.Value | None]:
    """Weight and bias of one Linear that computes several side by side, zeros where one has no bias.

    Layers that share their weights share the merged ones too.
    """
    weights = [p.weight for p in parts]
    weight = rewriter.derived("side by side", weights, f"{name}.weight", lambda: _joined(rewriter, weights))
    if all(p.bias is None for p in parts):
        return [weight, None]
    biases = [p.bias or _no_bias(rewriter, p.weight) for p in parts]
    bias = rewriter.derived("side by side", biases, f"{name}.bias", lambda: _joined(rewriter, biases))
    return [weight, bias]


def _joined(rewriter: Rewriter, values: list[ir.Value]) -> torch.Tensor:
    """The constants one below the other. numpy copies with one thread: no waiting for busy cores."""
    tensors = [t for t in map(rewriter.constant, values) if t is not None]
    rows = [t.contiguous().view(t.shape[0], -1).view(torch.uint8).numpy() for t in tensors]
    return torch.from_numpy(np.concatenate(rows)).view(tensors[0].dtype).view(-1, *tensors[0].shape[1:])


def _no_bias(rewriter: Rewriter, weight: ir.Value) -> ir.Value:
    tensor = rewriter.constant(weight)
    assert tensor is not None
    return rewriter.derived("no bias", [weight], f"{weight.name}.no_bias", lambda: tensor.new_zeros(tensor.shape[0]))


def row_constant(rewriter: Rewriter, value: ir.Value | None, size: object) -> torch.Tensor | None:
    """A constant with one number for each of `size` features ([M], [1, M], [1, 1, M], ...) as `[M]`; else None."""
    tensor = rewriter.constant(value)
    if tensor is None or tensor.dim() == 0 or tensor.shape[-1] != size or math.prod(tensor.shape[:-1]) != 1:
        return None
    return tensor.flatten()


def row_value(rewriter: Rewriter, value: ir.Value, size: object) -> ir.Value | None:
    """Like `row_constant`, as a value [M] that a declared operator takes: the same one when it is flat already."""
    tensor = row_constant(rewriter, value, size)
    if tensor is None:
        return None
    if value.is_initializer() and len(value.shape or ()) == 1:
        return value
    return rewriter.derived("flat", [value], f"{value.name}.flat", lambda: tensor)


def needs_linear(seen: Conditions, rewriter: Rewriter, value: ir.Value | None, what: str) -> LinearParts:
    """The Linear that computes `value`; a refusal when something else does."""
    node = rewriter.producer(value)
    source = "an input of the graph" if node is None else f"{node.op_type} {node.name!r}"
    parts = linear_parts(rewriter, node)
    return seen.found(parts, f"the {what} comes from {source}, not from a linear layer with constant weights", node)
