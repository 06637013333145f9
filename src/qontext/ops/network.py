"""The network builder: a graph made by method calls, with shapes checked at each call.

    net = Network("layer")
    x = net.input("x", "float32", ("B", "S", 768))
    y = net.layer_norm(x, net.parameter("gamma", gamma), net.parameter("beta", beta), epsilon=1e-12)
    net.output(y, "y")

`net.op("Softmax", x, axis=-1)` adds a standard ONNX operator; every declared operator has a method of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import torch

from ..dtypes import BY_NAME, by_name, from_onnx, from_torch
from ..errors import ArgumentError, GraphError, QontextError
from ..graph.attributes import attributes_of
from ..graph.dims import Shape, parse_dim, text, to_onnx
from ..graph.ledger import Ledger, set_origin
from ..graph.tensors import to_onnx as tensor_to_onnx
from .catalogue import BY_NAME as OPS
from .declare import Op
from .infer import Inference
from .operators import operators

OPSET = 23
IR_VERSION = 10
Array = torch.Tensor | np.ndarray | float | int | Sequence[Any]


class Network:
    """A network under construction.

    Args:
        name: name of the graph.
        plugins: operators of the user's beside the catalogue.
    """

    def __init__(self, name: str = "network", plugins: Sequence[Op] = (), opset: int = OPSET):
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": opset, "qontext": 1}, name=name)
        self.ops = operators(plugins)
        for op in plugins:
            self.graph.opset_imports.setdefault(op.domain, 1)
        self.inference = Inference(self.ops, opset)
        self._scopes: list[str] = []
        self._names: dict[str, int] = {}
        self._constants: dict[tuple[str, bytes], ir.Value] = {}

    # -- names -------------------------------------------------------------------------------------------------

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nodes added inside carry `name` (a module path) in their names and origins."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def _unique(self, base: str) -> str:
        path = ".".join([*self._scopes, base])
        count = self._names.get(path, 0)
        self._names[path] = count + 1
        return path if count == 0 else f"{path}_{count}"

    def _own(self, value: ir.Value) -> ir.Value:
        value.meta["network"] = self
        return value

    # -- borders -----------------------------------------------------------------------------------------------

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> ir.Value:
        """An input. `shape` holds numbers and names of sizes ("B", "S"). Raises ArgumentError for a taken name."""
        if any(v.name == name for v in self.graph.inputs):
            raise ArgumentError(f"Network.input: the name {name!r} is taken; inputs need different names")
        if dtype not in BY_NAME:
            raise ArgumentError(f"Network.input: {name!r} has unknown dtype {dtype!r}; allowed: {', '.join(BY_NAME)}")
        dims: Shape = tuple(parse_dim(d) for d in shape)
        value = ir.Value(name=name, shape=to_onnx(dims), type=ir.TensorType(by_name(dtype).onnx))
        self.graph.inputs.append(value)
        self.inference.declare(value)
        return self._own(value)

    def output(self, value: ir.Value, name: str | None = None) -> ir.Value:
        """Marks a value as output, under `name`."""
        self._mine(value, "output")
        if name is not None and value.name != name:
            if any(v is value for v in self.graph.outputs) or value.producer() is None:
                value = self.op("Identity", value)
            value.name = name
        self.graph.outputs.append(value)
        return value

    def parameter(self, name: str, tensor: Array) -> ir.Value:
        """A weight (an initializer of the graph), under its own name."""
        held = _as_tensor(tensor)
        value = ir.Value(name=name, const_value=tensor_to_onnx(held, name))
        value.shape, value.type = ir.Shape(list(held.shape)), ir.TensorType(from_torch(held.dtype).onnx)
        self.graph.register_initializer(value)
        return self._own(value)

    def constant(self, tensor: Array, name: str | None = None) -> ir.Value:
        """A small constant; equal ones share one initializer."""
        held = _as_tensor(tensor)
        key = (f"{held.dtype}{tuple(held.shape)}", held.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        if name is None and key in self._constants:
            return self._constants[key]
        value = self.parameter(name or self._unique("constant"), held)
        self._constants.setdefault(key, value)
        return value

    # -- nodes -------------------------------------------------------------------------------------------------

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The methods of the operators, which the end of this file adds."""

    def op(self, op_type: str, *inputs: Any, outputs: int = 1, name: str | None = None, **attributes: Any) -> Any:
        """Adds a standard ONNX operator. Numbers and tensors among the inputs become constants.

        Returns one value, or a tuple for several outputs. Raises GraphError when the shapes do not fit.
        """
        values = [v if v is None else self.value(v) for v in inputs]
        node = ir.Node("", op_type, values, attributes_of(attributes), num_outputs=outputs)
        return self._append(node, name or op_type, [True] * outputs)

    def add(
        self,
        op: Op,
        inputs: Sequence[Any],
        attributes: Mapping[str, Any],
        outputs: Sequence[str] = (),
        name: str | None = None,
    ) -> Any:
        """Adds a declared operator; see `Op.__call__`."""
        wanted = op.wanted(outputs)
        values = [None if v is None else self.value(v) for v in inputs]
        while values and values[-1] is None:
            values.pop()
        count = max(i + 1 for i, w in enumerate(wanted) if w)
        node = ir.Node(op.domain, op.name, values, attributes_of(op.complete_attributes(attributes)), num_outputs=count)
        return self._append(node, name or op.method, wanted[:count])

    def _append(self, node: ir.Node, base: str, wanted: Sequence[bool]) -> Any:
        node.name = self._unique(base)
        set_origin(node, ".".join(self._scopes) or node.name)
        for i, (value, want) in enumerate(zip(node.outputs, wanted, strict=True)):
            value.name = (node.name if len(node.outputs) == 1 else f"{node.name}:{i}") if want else ""
        self.graph.append(node)
        try:
            self.inference.infer(node)
        except QontextError as error:
            self.graph.remove(node, safe=True)  # lets go of its inputs too
            raise type(error)(f"{node.name}: {error.message}") from error
        results = tuple(self._own(v) for v, w in zip(node.outputs, wanted, strict=True) if w)
        return results[0] if len(results) == 1 else results

    def value(self, item: Any) -> ir.Value:
        """The graph value of an argument: a value of this network, or a constant made from numbers."""
        if isinstance(item, ir.Value):
            self._mine(item, "input")
            return item
        return self.constant(item)

    def _mine(self, value: ir.Value, what: str) -> None:
        if not isinstance(value, ir.Value) or value.meta.get("network") is not self:
            raise ArgumentError(f"Network: the {what} {value!r} is no value of this network")

    def shape(self, value: ir.Value) -> Shape:
        """The symbolic shape of a value. Raises GraphError when even its rank is unknown."""
        found = self.inference.shape(value)
        if found is None:
            raise GraphError(f"the shape of {value.name!r} is unknown")
        return found

    def describe(self, value: ir.Value) -> str:
        """dtype and shape of a value, for messages: "float32[B, S, 768]"."""
        dtype = from_onnx(value.dtype).name if value.dtype is not None else "?"
        return f"{dtype}{text(self.inference.shape(value))}"

    # -- the end -----------------------------------------------------------------------------------------------

    def model(self) -> ir.Model:
        """The ONNX model of what was built (shared, not copied). Raises GraphError when it has no output."""
        if not self.graph.outputs:
            raise GraphError(f"network {self.graph.name!r} has no output; mark one with network.output(value, name)")
        return ir.Model(self.graph, ir_version=IR_VERSION, producer_name="qontext")

    def ledger(self) -> Ledger:
        """A ledger in which every node of the network is an imported node."""
        ledger = Ledger()
        ledger.adopt(self.graph)
        return ledger


def _as_tensor(item: Array) -> torch.Tensor:
    if isinstance(item, torch.Tensor):
        return item.detach()
    if isinstance(item, np.ndarray):
        return torch.from_numpy(np.array(item))
    tensor = torch.tensor(item)
    return tensor


def _method(op: Op) -> Any:
    def method(self: Network, *args: Any, outputs: Sequence[str] = (), name: str | None = None, **kwargs: Any) -> Any:
        values, attributes = op.arguments(args, kwargs)
        return self.add(op, values, attributes, outputs=outputs, name=name)

    method.__name__ = op.method
    method.__doc__ = op.doc
    return method


for _op in OPS.values():
    setattr(Network, _op.method, _method(_op))
