"""Layers that hold weights: called on torch tensors they compute at once, called on graph values they add nodes."""

from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import torch

from ..errors import ArgumentError, ShapeError, all_problems
from ..functional.helpers import torch_dtype
from ..ops.network import Network

Tensor = Any  # torch.Tensor, or a value of a network under construction


class Module:
    """A layer.

    Weights are parameters of this rank, zeros until `load` puts numbers into them. In a network they become parameters
    under the name that the layer is given there (`layer.name = "decoder.0.attention"`).
    """

    def __init__(self, dtype: torch.dtype | str | None = None):
        self.dtype = torch.float32 if dtype is None else torch_dtype("dtype", dtype)
        self.name = type(self).__name__.lower()
        self._parameters: dict[str, torch.Tensor] = {}
        self._modules: dict[str, Module] = {}

    def add_parameter(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> None:
        """Declares a weight."""
        self._parameters[name] = torch.zeros(*shape, dtype=dtype or self.dtype)

    def add_module(self, name: str, module: "Module") -> "Module":
        """Declares a layer within this one."""
        self._modules[name] = module
        return module

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
        """All weights by their paths."""
        for name, tensor in self._parameters.items():
            yield f"{prefix}{name}", tensor
        for name, module in self._modules.items():
            yield from module.named_parameters(f"{prefix}{name}.")

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """Puts weights of this rank into the layer. Raises ArgumentError naming all that are missing or do not fit."""
        held = dict(self.named_parameters())
        problems = [f"{n!r} is missing" for n in held if n not in weights]
        problems += [f"{n!r} is unknown; the layer has {', '.join(held)}" for n in weights if n not in held]
        problems += [
            f"{n!r} has shape {list(weights[n].shape)}, expected {list(t.shape)}"
            for n, t in held.items()
            if n in weights and weights[n].shape != t.shape
        ]
        if problems:
            raise ArgumentError(all_problems(f"{type(self).__name__}.load", problems))
        for name, tensor in held.items():
            tensor.copy_(weights[name])

    def to(self, device: torch.device | str) -> "Module":
        """Moves all weights to a device; the layer itself."""
        for name, tensor in self._parameters.items():
            self._parameters[name] = tensor.to(device)
        for module in self._modules.values():
            module.to(device)
        return self

    def weight(self, name: str, like: Tensor) -> Tensor:
        """A weight as `like` needs it: the tensor, or a parameter of its network. None where the layer has none."""
        tensor = self._parameters.get(name)
        if tensor is None or not isinstance(like, ir.Value):
            return tensor
        network = network_of(like)
        path = f"{self.name}.{name}"
        held = network.graph.initializers.get(path)
        return held if held is not None else network.parameter(path, tensor)

    def named(self, name: str) -> "Module":
        """Gives the layer and those within it their names in a network."""
        self.name = name
        for inner, module in self._modules.items():
            module.named(f"{name}.{inner}")
        return self


def network_of(value: ir.Value) -> Network:
    """The network that a value belongs to. Raises ArgumentError when it belongs to none."""
    network = value.meta.get("network")
    if not isinstance(network, Network):
        raise ArgumentError(f"the value {value.name!r} belongs to no network")
    return network


def check_rank(what: str, name: str, x: Tensor, ranks: tuple[int, ...]) -> None:
    """Raises ShapeError unless a tensor has one of these numbers of axes."""
    shape = x.shape
    if shape is not None and len(shape) not in ranks:
        allowed = " or ".join(map(str, ranks))
        raise ShapeError(f"{what}: {name} has shape {list(shape)}, it needs {allowed} axes")
