"""Weights in few bits as constants of a graph: each is made once, whoever reads it."""

from collections.abc import Iterable

import onnx_ir as ir
import torch

from ..graph.tensors import constant_of, to_onnx
from ..ops.declare import DOMAIN
from .compensation import Compensation
from .groups import int4_groups
from .moments import Moments
from .recipe import QuantLayer, Recipe
from .weights import fp8_rows, int8_rows

_PARTS = {"int8": ("int8", "scale"), "float8_e4m3": ("float8_e4m3", "scale"), "int4": ("int4", "scale", "zero")}


class HeldWeights:
    """The constants that stand for weights of linear layers in one graph.

    What was rounded is kept in the recipe, so that a build that is tried again with other layers kept finds it there.
    """

    def __init__(self, graph: ir.Graph, recipe: Recipe) -> None:
        self._graph, self._recipe = graph, recipe
        self._values: dict[str, list[ir.Value]] = {}
        self._stems: dict[str, str] = {}
        self._readers: dict[ir.Value, list[str]] = {}
        for node in graph:
            if node.op_type == "Linear" and node.domain == DOMAIN and node.inputs[1] is not None:
                self._readers.setdefault(node.inputs[1], []).append(str(node.name))

    def of(self, node: ir.Node, kind: str, factors: torch.Tensor | None = None) -> list[ir.Value]:
        """Levels, scales and (of int4) zeros of the weight of a Linear; factors [K] multiply its columns first.

        Raises ArgumentError for a weight that holds a NaN or an infinity.
        """
        source, name = node.inputs[1], str(node.name)
        assert source is not None
        stem = f"{source.name}/{kind}" if factors is None else f"{source.name}/{name}/{kind}"
        self._stems[name] = stem
        if stem not in self._values:
            if stem not in self._recipe.rounded:
                readers = self._readers[source] if factors is None else [name]
                moments = [self._recipe.moments[n] for n in readers if n in self._recipe.moments]
                weight = constant_of(source)
                assert weight is not None
                self._round(stem, kind, str(source.name), name, weight, factors, moments)
            tensors, _ = self._recipe.rounded[stem]
            parts = [stem.removesuffix(kind) + part for part in _PARTS[kind]]
            self._values[stem] = [add_weight(self._graph, p, t) for p, t in zip(parts, tensors, strict=True)]
        return self._values[stem]

    def _round(
        self,
        stem: str,
        kind: str,
        source: str,
        node: str,
        weight: torch.Tensor,
        factors: torch.Tensor | None,
        moments: list[Moments],
    ) -> None:
        recipe, moving = self._recipe, None
        if moments:
            whole = Moments.together(moments)
            moving = Compensation(whole if factors is None else whole.divided(factors))
        home, place = weight.device, recipe.place or weight.device
        scaled = weight if factors is None else weight * factors
        tensors: tuple[torch.Tensor, ...]
        if kind == "int4":
            tensors = int4_groups(scaled.to(place), recipe.group, source, moving)
        elif kind == "int8":
            tensors = int8_rows(scaled.to(place), source, moving)
        else:
            tensors = fp8_rows(scaled.to(place), source, recipe.energies.get(node), moving)
        recipe.rounded[stem] = tuple(t.to(home) for t in tensors), None if moving is None else moving.done

    def note(self, layers: Iterable[QuantLayer]) -> None:
        """Writes into layers how their weights were rounded."""
        for layer in layers:
            _, done = self._recipe.rounded.get(self._stems.get(layer.name, ""), ((), None))
            if done is not None:
                layer.rounding, layer.nearest, layer.rounded = done.how, done.nearest, done.chosen


def add_weight(graph: ir.Graph, name: str, tensor: torch.Tensor) -> ir.Value:
    """A new constant of the graph."""
    held = to_onnx(tensor, name)
    value = ir.Value(name=name, const_value=held, type=ir.TensorType(held.dtype), shape=ir.Shape(tensor.shape))
    graph.register_initializer(value)
    return value


def drop_unread(graph: ir.Graph, weight: ir.Value) -> None:
    """Takes a constant out of the graph when nothing reads it any more."""
    if not weight.uses() and not weight.is_graph_output():
        del graph.initializers[str(weight.name)]
