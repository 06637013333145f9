"""Layers in normal form: builder calls that name their weights and carry the module path they stand for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir
import torch

from ..ops.network import Network


@dataclass
class Builder:
    """A network under construction together with the weights it draws from.

    weights: tensors by the name they have in the source model; each becomes a parameter once, however often it is used
    """

    net: Network
    weights: Mapping[str, torch.Tensor]
    prefix: str = ""
    _made: dict[str, ir.Value] = field(default_factory=dict)

    def weight(self, name: str) -> ir.Value:
        """The parameter of a weight."""
        if name not in self._made:
            self._made[name] = self.net.parameter(name, self.weights[name])
        return self._made[name]

    def optional(self, name: str) -> ir.Value | None:
        """The parameter of a weight that may be absent."""
        return self.weight(name) if name in self.weights else None


def linear(build: Builder, x: ir.Value, path: str) -> ir.Value:
    """y = x W^T + b with `path.weight` [M, K] and, where it exists, `path.bias` [M]."""
    with build.net.scope(path):
        return build.net.linear(x, build.weight(f"{path}.weight"), build.optional(f"{path}.bias"))


def layer_norm(build: Builder, x: ir.Value, path: str, epsilon: float) -> ir.Value:
    """LayerNorm over the last axis with `path.weight` and `path.bias` [E]."""
    with build.net.scope(path):
        return build.net.layer_norm(x, build.weight(f"{path}.weight"), build.weight(f"{path}.bias"), epsilon=epsilon)


def rms_norm(build: Builder, x: ir.Value, path: str, epsilon: float) -> ir.Value:
    """RMSNorm over the last axis with `path.weight` [E]."""
    with build.net.scope(path):
        return build.net.rms_norm(x, build.weight(f"{path}.weight"), epsilon=epsilon)


def activate(build: Builder, x: ir.Value, kind: str, path: str) -> ir.Value:
    """An activation by our name: "gelu" (erf), "gelu_tanh", "relu", "silu", "tanh"."""
    net = build.net
    with net.scope(path):
        if kind == "gelu":
            return net.gelu(x)
        if kind == "gelu_tanh":
            return net.gelu(x, approximate="tanh")
        if kind == "silu":
            return net.op("Mul", x, net.op("Sigmoid", x))
        return net.op({"relu": "Relu", "tanh": "Tanh"}[kind], x)


def embedding(build: Builder, ids: ir.Value, path: str) -> ir.Value:
    """Rows of `path.weight` [V, E]."""
    with build.net.scope(path):
        return build.net.op("Gather", build.weight(f"{path}.weight"), ids, axis=0)


def add(build: Builder, a: ir.Value, b: ir.Value, path: str) -> ir.Value:
    with build.net.scope(path):
        return build.net.op("Add", a, b)


def self_attention(
    build: Builder,
    x: ir.Value,
    mask: ir.Value,
    paths: Mapping[str, str],
    heads: int,
    bias: ir.Value | None = None,
) -> ir.Value:
    """Q, K and V projections, attention, output projection.

    Args:
        x: [B, S, E]; mask: bool [B, 1, 1, S], True where a key may be seen; bias: [1, N, P, P] with P >= S.
        paths: "query", "key", "value", "attention_output" -> module path.
    """
    query, key, value = (linear(build, x, paths[p]) for p in ("query", "key", "value"))
    with build.net.scope(paths["query"].rpartition(".")[0]):
        context = build.net.attention(query, key, value, mask=mask, bias=bias, num_heads=heads, layout="B S (N D)")
    return linear(build, context, paths["attention_output"])
