"""A foreign node under conversion: what it reads and says, and the nodes that take its place."""

from collections.abc import Collection, Sequence
from typing import Any

import onnx_ir as ir
import torch

from ..dtypes import from_onnx
from ..errors import UnsupportedOperatorError
from ..graph.attributes import attributes_of, values_of
from ..graph.dims import AnyDim, Shape, text
from ..graph.ledger import origin_of, set_origin
from ..graph.tensors import constant_of, to_onnx
from ..ops.declare import DOMAIN, Op
from ..ops.infer import Inference


class Site:
    """What a converter works with. Attributes that it does not take are refused in the end."""

    def __init__(self, node: ir.Node, graph: ir.Graph, inference: Inference):
        self.node = node
        self._graph = graph
        self._inference = inference
        self._left = values_of(node)
        self.added: list[ir.Node] = []

    # -- reading -----------------------------------------------------------------------------------------------

    def input(self, index: int) -> ir.Value | None:
        """The operand of that position, None when it is absent."""
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def needed(self, index: int, name: str) -> ir.Value:
        """The operand of that position. Raises UnsupportedOperatorError when it is absent."""
        value = self.input(index)
        if value is None:
            raise self.refusal(f"input {index} ({name}) is missing")
        return value

    def wants(self, index: int) -> bool:
        """True when somebody reads the output of that position."""
        outputs = self.node.outputs
        return index < len(outputs) and (bool(outputs[index].uses()) or outputs[index].is_graph_output())

    def shape(self, value: ir.Value, what: str) -> Shape:
        """The shape of an operand. Raises UnsupportedOperatorError when not even its rank is known."""
        shape = self._inference.shape(value)
        if shape is None:
            raise self.refusal(f"the rank of {what} ({value.name!r}) is unknown")
        return shape

    def width(self, value: ir.Value, what: str) -> int:
        """The last axis of an operand, which has to be a number."""
        shape = self.shape(value, what)
        if not shape or not isinstance(shape[-1], int):
            raise self.refusal(f"{what} has shape {text(shape)}; its last axis has to be a number")
        return shape[-1]

    def dtype(self, value: ir.Value) -> torch.dtype:
        """The torch dtype of an operand."""
        if value.dtype is None:
            raise self.refusal(f"the data type of {value.name!r} is unknown")
        return from_onnx(value.dtype).torch

    def weight(self, value: ir.Value, what: str) -> torch.Tensor:
        """The tensor of an operand that has to be a constant."""
        tensor = constant_of(value)
        if tensor is None:
            raise self.refusal(f"{what} ({value.name!r}) is computed at run time; it has to be a constant")
        return tensor

    def integer(self, name: str, default: int | None = None, allowed: Collection[int] | None = None) -> int:
        """Takes an integer attribute; without default it is required."""
        value = self._left.pop(name, default)
        if not isinstance(value, int) or (allowed is not None and value not in allowed):
            raise self._wrong(name, value, "an integer" if allowed is None else f"one of {sorted(allowed)}")
        return value

    def number(self, name: str, default: float) -> float:
        """Takes a float attribute."""
        value = self._left.pop(name, default)
        if not isinstance(value, (int, float)):
            raise self._wrong(name, value, "a number")
        return float(value)

    def integers(self, name: str) -> list[int] | None:
        """Takes a list of integers, None when it is absent."""
        value = self._left.pop(name, None)
        if value is not None and (not isinstance(value, list) or not all(isinstance(v, int) for v in value)):
            raise self._wrong(name, value, "a list of integers")
        return value

    def word(self, name: str, default: str) -> str:
        """Takes a text attribute."""
        value = self._left.pop(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, value, "text")
        return value

    def array(self, name: str, optional: bool = False) -> torch.Tensor | None:
        """Takes a tensor attribute (a tensor or a list of floats); None when it is absent and may be."""
        value = self._left.pop(name, None)
        if isinstance(value, list):
            value = torch.tensor(value, dtype=torch.float32)
        if value is None and optional:
            return None
        if not isinstance(value, torch.Tensor):
            raise self._wrong(name, value, "a tensor")
        return value

    # -- refusing ----------------------------------------------------------------------------------------------

    def refusal(self, reason: str) -> UnsupportedOperatorError:
        """The error for something that cannot be honoured."""
        domain = self.node.domain or "ai.onnx"
        return UnsupportedOperatorError(
            f"node {self.node.name!r} ({domain}::{self.node.op_type}): {reason}; qontext cannot honour this"
        )

    def _wrong(self, name: str, value: object, allowed: str) -> UnsupportedOperatorError:
        found = "is missing" if value is None else f"is {value!r}"
        return self.refusal(f"attribute {name!r} {found}; allowed is {allowed}")

    def refuse_leftovers(self) -> None:
        """Raises UnsupportedOperatorError naming every attribute that no converter took."""
        if self._left:
            listed = ", ".join(f"{k}={v!r}" for k, v in self._left.items())
            raise self.refusal(f"its attributes {listed[:300]} are unknown")

    # -- adding ------------------------------------------------------------------------------------------------

    def add(self, op: Op | str, *inputs: ir.Value | None, wanted: Sequence[bool] = (True,), **attributes: Any) -> Any:
        """Adds an operator of ours or a standard one before the foreign node.

        Returns one value, or a tuple where `wanted` has several entries; what is not wanted has an empty name.
        """
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        if isinstance(op, Op):
            domain, name, settings = op.domain, op.name, op.complete_attributes(attributes)
            self._graph.opset_imports.setdefault(DOMAIN, 1)
        else:
            domain, name, settings = "", op, attributes
        node = ir.Node(domain, name, given, attributes_of(settings), num_outputs=len(wanted))
        node.name = f"{self.node.name}/{name}" + (f"_{len(self.added)}" if self.added else "")
        set_origin(node, origin_of(self.node))
        for i, (value, want) in enumerate(zip(node.outputs, wanted, strict=True)):
            value.name = "" if not want else node.name if len(wanted) == 1 else f"{node.name}:{i}"
        self._graph.insert_before(self.node, node)
        self.added.append(node)
        self._inference.infer(node)
        return node.outputs[0] if len(wanted) == 1 else tuple(node.outputs)

    def along(self, op: str, value: ir.Value, axes: list[int], **attributes: Any) -> ir.Value:
        """Adds Squeeze, Unsqueeze or ReduceSum, whose axes are an attribute before opset 13 and an input since."""
        result: ir.Value
        if self._inference.opset < 13:
            result = self.add(op, value, axes=axes, **attributes)
        else:
            result = self.add(op, value, self.numbers(axes, "axes"), **attributes)
        return result

    def constant(self, tensor: torch.Tensor, name: str) -> ir.Value:
        """A new weight named after the node."""
        unique = base = f"{self.node.name}.{name}"
        count = 0
        while unique in self._graph.initializers:
            count += 1
            unique = f"{base}_{count}"
        held = to_onnx(tensor, unique)
        value = ir.Value(name=unique, const_value=held, shape=ir.Shape(list(tensor.shape)))
        value.dtype = held.dtype
        self._graph.register_initializer(value)
        return value

    def numbers(self, values: list[int], name: str) -> ir.Value:
        """A constant of whole numbers: axes, shapes, bounds."""
        return self.constant(torch.tensor(values, dtype=torch.int64), name)

    def main(self) -> ir.Node:
        """The added node that stands for the foreign one in reports: the last of ours, else the last of all."""
        return next((n for n in reversed(self.added) if n.domain == DOMAIN), self.added[-1])


def same(a: AnyDim, b: AnyDim) -> bool:
    """True when two sizes are known to be equal."""
    return a is not None and a == b
