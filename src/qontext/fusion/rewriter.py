"""What a fusion rule sees of the graph, and the one way in which it may change it."""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch

from ..dtypes import from_onnx
from ..errors import NoFusion, QontextError, UnsupportedOperatorError
from ..graph.attributes import attributes_of, values_of
from ..graph.dims import AnyDim, Shape, text
from ..graph.ledger import Ledger, common_origin, set_origin
from ..graph.tensors import constant_of, to_onnx
from ..ops.declare import DOMAIN, Op
from ..ops.infer import Inference
from .words import telling_attributes

UNNAMED = re.compile(r"u\d+")
"""Names that inference gives to sizes which follow from no size of an input."""


class Rewriter:
    """A graph under fusion."""

    def __init__(self, graph: ir.Graph, inference: Inference, ledger: Ledger):
        self.graph = graph
        self.inference = inference
        self.ledger = ledger
        self._count = 0
        self._made: dict[Hashable, ir.Value] = {}
        self.notes: dict[Hashable, object] = {}  # what rules find out about values, which never change their meaning

    # -- looking -----------------------------------------------------------------------------------------------

    def producer(self, value: ir.Value | None, *op_types: str) -> ir.Node | None:
        """The node that computes a value, when its operator is one of `op_types` (any when none are named)."""
        node = value.producer() if value is not None else None
        return node if node is not None and (not op_types or node.op_type in op_types) else None

    def constant(self, value: ir.Value | None) -> torch.Tensor | None:
        """The tensor of a weight or constant."""
        return constant_of(value)

    def scalar(self, value: ir.Value | None) -> float | None:
        """The number of a constant with one element."""
        tensor = constant_of(value)
        return float(tensor.flatten()[0]) if tensor is not None and tensor.numel() == 1 else None

    def shape(self, value: ir.Value) -> Shape | None:
        """The symbolic shape of a value."""
        return self.inference.shape(value)

    def rank(self, value: ir.Value) -> int | None:
        shape = self.inference.shape(value)
        return None if shape is None else len(shape)

    def attributes(self, node: ir.Node) -> dict[str, Any]:
        return values_of(node)

    def is_ours(self, node: ir.Node | None, *names: str) -> bool:
        """True for a node of our domain whose operator is one of `names`."""
        return node is not None and node.domain == DOMAIN and node.op_type in names

    def input(self, node: ir.Node, index: int) -> ir.Value | None:
        """An input by position; None where it is absent or left off at the end."""
        return node.inputs[index] if index < len(node.inputs) else None

    def consumers(self, value: ir.Value) -> list[ir.Node]:
        """The nodes that read a value, each once."""
        return list(dict.fromkeys(use.node for use in value.uses()))

    def only_consumer(self, value: ir.Value) -> ir.Node | None:
        """The one node that reads a value that is no output of the graph; None otherwise."""
        found = self.consumers(value)
        return found[0] if len(found) == 1 and not value.is_graph_output() else None

    def read_elsewhere(self, value: ir.Value, inside: Sequence[ir.Node]) -> bool:
        """True when a node outside `inside`, or the caller of the graph, reads this value."""
        return value.is_graph_output() or any(n not in inside for n in self.consumers(value))

    # -- changing ----------------------------------------------------------------------------------------------

    def weight(self, name: str, tensor: torch.Tensor) -> ir.Value:
        """A new weight; the name gets a number when it is taken."""
        unique, n = name, 0
        while unique in self.graph.initializers:
            n += 1
            unique = f"{name}_{n}"
        value = ir.Value(name=unique, const_value=to_onnx(tensor, unique))
        assert value.const_value is not None
        value.shape, value.dtype = ir.Shape(list(tensor.shape)), value.const_value.dtype
        self.graph.register_initializer(value)
        return value

    def derived(self, kind: str, sources: Sequence[ir.Value], name: str, make: Callable[[], torch.Tensor]) -> ir.Value:
        """A weight computed from other weights: made once for each kind and sources, so that shared layers share it."""
        key = (kind, *sources)
        value = self._made.get(key)
        if value is None:
            value = self._made[key] = self.weight(name, make())
        elif not value.is_initializer():
            self.graph.register_initializer(value)  # a sweep took it while nobody read it
        return value

    def named_constant(self, name: str, tensor: torch.Tensor) -> ir.Value:
        """A small constant whose name says its value, made once."""
        return self.derived(name, (), name, lambda: tensor)

    def shape_constant(self, target: torch.Tensor) -> ir.Value:
        """The target of a Reshape, made once for all that have the same."""
        return self.named_constant("shape." + ".".join(str(n).replace("-", "m") for n in target.tolist()), target)

    def named_scalar(self, number: float, dtype: ir.DataType) -> ir.Value:
        """A constant of one number and no axes."""
        return self.named_constant(
            f"number.{number!r}.{dtype.name}", torch.tensor(number, dtype=from_onnx(dtype).torch)
        )

    def insert(
        self,
        before: ir.Node,
        op: Op | str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        outputs: int = 1,
        origin: Sequence[ir.Node] = (),
    ) -> ir.Node:
        """Adds a node before another one: an operator of ours, or a standard one by name.

        Raises:
            NoFusion: the operator cannot take these inputs; nothing was added.
            UnsupportedOperatorError: inference knows no such operator.
        """
        given = dict(attributes or {})
        inputs = list(inputs)
        while inputs and inputs[-1] is None:
            inputs.pop()
        if isinstance(op, Op):
            node = ir.Node(
                op.domain, op.name, inputs, attributes_of(op.complete_attributes(given)), num_outputs=outputs
            )
        else:
            node = ir.Node("", op, inputs, attributes_of(given), num_outputs=outputs)
        if isinstance(op, Op):
            self.graph.opset_imports.setdefault(op.domain, 1)
        path = common_origin(list(origin) or [before])
        self._count += 1
        node.name = f"{path or 'graph'}/{node.op_type}_{self._count}"
        set_origin(node, path)
        for i, value in enumerate(node.outputs):
            value.name = node.name if outputs == 1 else f"{node.name}:{i}"
        self.graph.insert_before(before, node)
        try:
            self.inference.infer(node)
        except UnsupportedOperatorError:  # a rule whose operator is missing must not pass for one that found nothing
            self.graph.remove(node, safe=True)
            raise
        except QontextError as error:
            self.graph.remove(node, safe=True)
            raise NoFusion(f"{node.op_type} cannot take it: {error.message}", depth=1) from error
        return node

    def unsqueeze(self, before: ir.Node, value: ir.Value, axes: Sequence[int]) -> ir.Value:
        """The value with axes of size 1 at the given places, in the form that the graph's opset has for it."""
        if not axes:
            return value
        if self.inference.opset < 13:
            return self.insert(before, "Unsqueeze", [value], {"axes": list(axes)}).outputs[0]
        name = "axes." + ".".join(str(a) for a in axes)
        places = self.named_constant(name, torch.tensor(list(axes), dtype=torch.int64))
        return self.insert(before, "Unsqueeze", [value, places]).outputs[0]

    def move_first(self, node: ir.Node) -> None:
        """Moves a node that reads only inputs of the graph to the front."""
        first = next(iter(self.graph))
        self.graph.remove(node)
        self.graph.insert_before(first, node)

    def replace(
        self,
        rule: str,
        old: Sequence[ir.Node],
        op: Op | str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        results: Sequence[ir.Value | None] = (),
        note: str = "",
        at: ir.Node | None = None,
        origin: Sequence[ir.Node] = (),
    ) -> ir.Node:
        """Puts one node in place of several.

        Args:
            rule: name of the rule, for the ledger.
            old: the nodes it replaces, any order. Those that somebody else still reads stay.
            results: old values, one for each output of the new node (None for an output nobody had before).
            note: for the record; the telling attributes of the new node when left out.
            at: insert before this node (the producer of results[0] when left out).
            origin: the nodes that say where the new one comes from (all of `old` when left out).
        Raises:
            NoFusion: when the new node would change type or shape of a result.
        """
        anchor = at or next(v.producer() for v in results if v is not None)
        assert anchor is not None
        node = self.insert(anchor, op, inputs, attributes, len(results), origin=origin or old)
        for value, new in zip(results, node.outputs, strict=True):
            if value is not None:
                self._check_same(value, new, node)
        for value, new in zip(results, node.outputs, strict=True):
            if value is None:
                continue
            self.redirect(value, new)
        self.absorb(rule, old, node, note)
        return node

    def _check_same(self, value: ir.Value, new: ir.Value, node: ir.Node) -> None:
        """Takes the new node out again when its result has another type or shape than what it is to replace."""
        old_shape, new_shape = self.shape(value), self.shape(new)
        types = value.dtype is not None and new.dtype is not None and value.dtype != new.dtype
        if types or _differ(old_shape, new_shape):
            self.graph.remove(node, safe=True)
            before, after = (f"{v.dtype}{text(s)}" for v, s in ((value, old_shape), (new, new_shape)))
            raise NoFusion(f"the result {value.name!r} is {before}, fused it would be {after}", depth=1)

    def absorb(self, rule: str, old: Sequence[ir.Node], new: ir.Node, note: str = "") -> None:
        """Deletes those of `old` that nobody reads any more, and records that `new` stands for them."""
        words = telling_attributes(new, self.inference.ops)
        self.ledger.fuse(rule, self._drop(old), new, "; ".join(w for w in (words, note) if w))

    def set_inputs(self, node: ir.Node, values: Mapping[int, ir.Value]) -> None:
        """Lets a node read other values with which it computes the same; it keeps its place and its record."""
        for index, value in values.items():
            node.replace_input_with(index, value)
        self.inference.infer(node)

    def can_stand_in(self, instead: ir.Value, value: ir.Value) -> bool:
        """True when readers of `value` can read `instead`: an output of the graph needs a value of its own."""
        return not value.is_graph_output() or (instead.producer() is not None and not instead.is_graph_output())

    def redirect(self, value: ir.Value, new: ir.Value) -> None:
        """Lets everybody who read `value` read `new`; an output of the graph keeps its name."""
        if value.is_graph_output():
            name = value.name
            value.name = f"{name}/before"
            new.name = name
        value.replace_all_uses_with(new, replace_graph_outputs=True)

    def remove(self, node: ir.Node, instead: ir.Value, reason: str) -> None:
        """Takes out a node with one output whose readers can read `instead`."""
        self.redirect(node.outputs[0], instead)
        self.ledger.remove(node, reason)
        self._delete(node)

    def fold(self, node: ir.Node, results: Sequence[torch.Tensor], reason: str) -> None:
        """Replaces a node by constants."""
        for value, tensor in zip(node.outputs, results, strict=True):
            if value.uses() or value.is_graph_output():
                self.redirect(value, self.weight(f"{value.name}/folded", tensor))
        self.ledger.fold(node, reason)
        self._delete(node)

    def sweep(self, reason: str) -> int:
        """Removes nodes that nobody reads, and weights that nobody reads. Returns how many nodes went."""
        count = 0
        for node in reversed(list(self.graph)):
            if not any(v.uses() or v.is_graph_output() for v in node.outputs):
                self.ledger.remove(node, reason)
                self._delete(node)
                count += 1
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]
        return count

    def _drop(self, old: Sequence[ir.Node]) -> list[ir.Node]:
        """Deletes those of `old` that nobody reads any more, readers first."""
        left, gone = list(dict.fromkeys(old)), []
        changed = True
        while changed:
            changed = False
            for node in list(left):
                if not any(v.uses() or v.is_graph_output() for v in node.outputs):
                    left.remove(node)
                    gone.append(node)
                    self._delete(node)
                    changed = True
        return gone

    def _delete(self, node: ir.Node) -> None:
        for value in node.outputs:
            self.inference.known.pop(value, None)
        self.graph.remove(node, safe=True)


def _differ(a: Shape | None, b: Shape | None) -> bool:
    """True for shapes that are certainly not the same."""
    if a is None or b is None:
        return False
    return len(a) != len(b) or any(x != y and _is_said(x) and _is_said(y) for x, y in zip(a, b, strict=True))


def _is_said(dim: AnyDim) -> bool:
    """False for a size that inference could not express by the sizes of the inputs."""
    return dim is not None and (isinstance(dim, int) or not any(UNNAMED.fullmatch(name) for name in dim.symbols))
