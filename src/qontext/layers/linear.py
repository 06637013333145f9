"""Linear layers that ranks share: by output columns, or by input rows with a sum at the end; in floats or fp8."""

from collections.abc import Sequence

import onnx_ir as ir
import torch

from ..errors import ArgumentError
from ..ops.catalogue import BY_NAME
from .module import Module, Tensor
from .parallel import parallel

LINEAR = BY_NAME["Linear"]
FP8_MOST = 448.0


class _Linear(Module):
    """What both kinds share: y = x W^T + b on this rank's part of W."""

    def __init__(
        self,
        kind: str,
        in_features: int,
        out_features: int,
        bias: bool,
        dtype: torch.dtype | str | None,
        tp_group: Sequence[int] | None,
        tp_size: int,
    ):
        super().__init__(dtype)
        self.ranks = parallel(type(self).__name__, tp_group, tp_size)
        split, name = (out_features, "out_features") if kind == "column" else (in_features, "in_features")
        if min(in_features, out_features) < 1 or split % tp_size:
            raise ArgumentError(
                f"{type(self).__name__}: {in_features} -> {out_features} features; {name} has to be a multiple of "
                f"tp_size {tp_size}"
            )
        rows = out_features // tp_size if kind == "column" else out_features
        columns = in_features // tp_size if kind == "row" else in_features
        self.in_features, self.out_features = columns, rows
        self.add_weights(rows, columns)
        if bias:
            self.add_parameter("bias", rows)

    def add_weights(self, rows: int, columns: int) -> None:
        self.add_parameter("weight", rows, columns)

    def product(self, x: Tensor, bias: Tensor) -> Tensor:
        return LINEAR(x, self.weight("weight", x), bias)


class ColumnLinear(_Linear):
    """A linear layer whose output features are divided among ranks.

    Args:
        in_features, out_features: of all ranks together.
        bias, dtype: of the weights.
        tp_group: numbers of the processes that share it.
        tp_size: how many they are.
        gather_output: every rank gets all output features; False leaves each with its own.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: torch.dtype | str | None = None,
        tp_group: Sequence[int] | None = None,
        tp_size: int = 1,
        gather_output: bool = True,
    ):
        super().__init__("column", in_features, out_features, bias, dtype, tp_group, tp_size)
        self.gather_output = gather_output

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], or this rank's part of it."""
        y = self.product(x, self.weight("bias", x))
        if not self.gather_output or self.ranks.size == 1:
            return y
        _needs_tensor(self, y)
        return self.ranks.all_gather(y)


class RowLinear(_Linear):
    """A linear layer whose input features are divided among ranks; their products are summed.

    Args: as for ColumnLinear; `instance_id` is accepted for callers that number their all-reduces, and unused.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: torch.dtype | str | None = None,
        tp_group: Sequence[int] | None = None,
        tp_size: int = 1,
        instance_id: int = 0,
    ):
        super().__init__("row", in_features, out_features, bias, dtype, tp_group, tp_size)
        self.instance_id = instance_id

    def __call__(self, x: Tensor, workspace: Tensor = None) -> Tensor:
        """x [..., in / ranks] -> [..., out]. `workspace` is accepted and unused: sums need no memory of the caller."""
        if self.ranks.size == 1:
            return self.product(x, self.weight("bias", x))
        y = self.product(x, None)
        _needs_tensor(self, y)
        y = self.ranks.all_reduce(y)
        bias = self.weight("bias", x)
        return y if bias is None else y + bias


class _Fp8:
    """Weights in fp8 with one scale, activations rounded to fp8 with one scale; products in the layer's dtype."""

    def add_weights(self, rows: int, columns: int) -> None:
        self.add_parameter("weight", rows, columns, dtype=torch.float8_e4m3fn)  # type: ignore[attr-defined]
        for name in ("activation_scaling_factor", "weights_scaling_factor"):
            self.add_parameter(name, 1, dtype=torch.float32)  # type: ignore[attr-defined]
            self._parameters[name].fill_(1.0)  # type: ignore[attr-defined]

    def product(self, x: Tensor, bias: Tensor) -> Tensor:
        if isinstance(x, ir.Value):
            raise ArgumentError(f"{type(self).__name__}: fp8 layers compute on tensors; in a network use a float layer")
        held = self._parameters  # type: ignore[attr-defined]
        by = held["activation_scaling_factor"]
        rounded = (x.float() / by).clamp(-FP8_MOST, FP8_MOST).to(torch.float8_e4m3fn).float() * by
        weight = held["weight"].float() * held["weights_scaling_factor"]
        return LINEAR(rounded.to(x.dtype), weight.to(x.dtype), bias)


class FP8Linear(_Fp8, ColumnLinear):
    """ColumnLinear with weights and activations in fp8 (e4m3), one float32 scale each."""


class FP8RowLinear(_Fp8, RowLinear):
    """RowLinear with weights and activations in fp8 (e4m3), one float32 scale each."""


def _needs_tensor(layer: _Linear, y: Tensor) -> None:
    if isinstance(y, ir.Value):
        raise ArgumentError(
            f"{type(layer).__name__}: tp_size is {layer.ranks.size}; a network holds one rank, so layers that talk to "
            "others compute on tensors only"
        )
