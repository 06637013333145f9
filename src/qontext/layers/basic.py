"""Norms, embeddings and feed-forward layers."""

from collections.abc import Callable, Sequence

import onnx_ir as ir
import torch

from ..errors import ArgumentError, InputError
from ..functional.vocabulary import LayerNormType
from ..ops.catalogue import BY_NAME
from .linear import ColumnLinear, RowLinear
from .module import Module, Tensor, network_of
from .parallel import parallel

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.nn.functional.relu,
    "gelu": torch.nn.functional.gelu,
    "gelu_new": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": torch.nn.functional.silu,
    "swiglu": torch.nn.functional.silu,
}


class LayerNorm(Module):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis.

    Args:
        normalized_shape: size of the last axis.
        eps, elementwise_affine, dtype: as torch has them.
    """

    def __init__(
        self,
        normalized_shape: int,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        dtype: torch.dtype | str | None = None,
    ):
        super().__init__(dtype)
        self.eps = eps
        if elementwise_affine:
            self.add_parameter("weight", normalized_shape)
            self._parameters["weight"].fill_(1.0)
            self.add_parameter("bias", normalized_shape)

    def __call__(self, x: Tensor) -> Tensor:
        return BY_NAME["LayerNorm"](x, self.weight("weight", x), self.weight("bias", x), epsilon=self.eps)


class RmsNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""

    def __init__(
        self,
        normalized_shape: int,
        eps: float = 1e-6,
        elementwise_affine: bool = True,
        dtype: torch.dtype | str | None = None,
    ):
        super().__init__(dtype)
        self.eps = eps
        if elementwise_affine:
            self.add_parameter("weight", normalized_shape)
            self._parameters["weight"].fill_(1.0)

    def __call__(self, x: Tensor) -> Tensor:
        return BY_NAME["RMSNorm"](x, self.weight("weight", x), epsilon=self.eps)


class GroupNorm(Module):
    """Norm over groups of channels: x [B, C, ...]."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: torch.dtype | str | None = None,
    ):
        super().__init__(dtype)
        self.num_groups, self.eps = num_groups, eps
        self.add_parameter("weight", num_channels)
        self._parameters["weight"].fill_(1.0)
        self.add_parameter("bias", num_channels)
        self.affine = affine

    def __call__(self, x: Tensor) -> Tensor:
        weight, bias = self.weight("weight", x), self.weight("bias", x)
        return BY_NAME["GroupNorm"](x, weight, bias, num_groups=self.num_groups, epsilon=self.eps)


NORMS = {LayerNormType.LayerNorm: LayerNorm, LayerNormType.RmsNorm: RmsNorm}


class Embedding(Module):
    """Rows of a table; ranks share its rows (sharding_dim 0, summed) or its columns (sharding_dim 1, gathered).

    Args:
        num_embeddings, embedding_dim: rows and columns of all ranks together.
        tp_group, tp_size, tp_rank: the ranks that share it.
        sharding_dim: the axis that is divided.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        dtype: torch.dtype | str | None = None,
        tp_size: int = 1,
        tp_group: Sequence[int] | None = None,
        sharding_dim: int = 0,
        tp_rank: int | None = None,
    ):
        super().__init__(dtype)
        self.ranks = parallel("Embedding", tp_group, tp_size, tp_rank)
        if sharding_dim not in (0, 1):
            raise ArgumentError(f"Embedding: sharding_dim is {sharding_dim}, allowed are 0 (rows) and 1 (columns)")
        if (num_embeddings, embedding_dim)[sharding_dim] % tp_size:
            raise ArgumentError(
                f"Embedding: {num_embeddings} x {embedding_dim} is not divided by tp_size {tp_size} along axis "
                f"{sharding_dim}; padded_vocabulary says how many rows are"
            )
        self.sharding_dim, self.total = sharding_dim, num_embeddings
        shape = [num_embeddings, embedding_dim]
        shape[sharding_dim] //= tp_size
        self.add_parameter("weight", *shape)

    def __call__(self, ids: Tensor) -> Tensor:
        """ids [...] -> [..., E]. Raises InputError for ids outside the table."""
        weight = self.weight("weight", ids)
        if isinstance(ids, ir.Value):
            if self.ranks.size > 1:
                raise ArgumentError("Embedding: a network holds one rank; with tp_size over 1 it computes on tensors")
            return network_of(ids).op("Gather", weight, ids, axis=0)
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= self.total):
            raise InputError(
                f"Embedding: ids hold {int(ids.min())} to {int(ids.max())}, allowed are 0 to {self.total - 1}"
            )
        if self.ranks.size == 1:
            return weight[ids.long()]
        if self.sharding_dim == 1:
            return self.ranks.all_gather(weight[ids.long()])
        mine = ids.long() - self.ranks.rank * len(weight)
        inside = (mine >= 0) & (mine < len(weight))
        rows = weight[mine.clamp(0, len(weight) - 1)] * inside.unsqueeze(-1).to(weight.dtype)
        return self.ranks.all_reduce(rows)


class MLP(Module):
    """down(act(up(x))), the inner features divided among ranks."""

    def __init__(
        self,
        hidden_size: int,
        ffn_hidden_size: int,
        hidden_act: str,
        bias: bool = True,
        dtype: torch.dtype | str | None = None,
        tp_group: Sequence[int] | None = None,
        tp_size: int = 1,
    ):
        super().__init__(dtype)
        self.hidden_act = _known("MLP", hidden_act)
        self.fc = ColumnLinear(hidden_size, ffn_hidden_size, bias, dtype, tp_group, tp_size, gather_output=False)
        self.proj = RowLinear(ffn_hidden_size, hidden_size, bias, dtype, tp_group, tp_size)
        self.add_module("fc", self.fc)
        self.add_module("proj", self.proj)

    def __call__(self, hidden_states: Tensor, workspace: Tensor = None) -> Tensor:
        return self.proj(activated(self.fc(hidden_states), self.hidden_act), workspace)


class GatedMLP(MLP):
    """down(act(fc(x)) * gate(x))."""

    def __init__(
        self,
        hidden_size: int,
        ffn_hidden_size: int,
        hidden_act: str,
        bias: bool = True,
        dtype: torch.dtype | str | None = None,
        tp_group: Sequence[int] | None = None,
        tp_size: int = 1,
    ):
        super().__init__(hidden_size, ffn_hidden_size, hidden_act, bias, dtype, tp_group, tp_size)
        self.gate = ColumnLinear(hidden_size, ffn_hidden_size, bias, dtype, tp_group, tp_size, gather_output=False)
        self.add_module("gate", self.gate)

    def __call__(self, hidden_states: Tensor, workspace: Tensor = None) -> Tensor:
        inner, gate = activated(self.fc(hidden_states), self.hidden_act), self.gate(hidden_states)
        both = network_of(inner).op("Mul", inner, gate) if isinstance(inner, ir.Value) else inner * gate
        return self.proj(both, workspace)


def activated(x: Tensor, kind: str) -> Tensor:
    """An activation by name, on tensors or graph values."""
    if not isinstance(x, ir.Value):
        return ACTIVATIONS[kind](x)
    net = network_of(x)
    if kind.startswith("gelu"):
        return net.gelu(x, approximate="tanh" if kind == "gelu_new" else "none")
    return net.op("Relu", x) if kind == "relu" else net.op("Mul", x, net.op("Sigmoid", x))


def _known(what: str, kind: str) -> str:
    if kind not in ACTIVATIONS:
        raise ArgumentError(f"{what}: hidden_act is {kind!r}, allowed: {', '.join(ACTIVATIONS)}")
    return kind
