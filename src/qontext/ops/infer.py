"""Shape, dtype and value inference by running the graph abstractly.

Every named size of the inputs is given two different prime numbers. The graph is run once for each choice, data
tensors on torch's `meta` device (shapes without memory), shape arithmetic in real integer tensors. A dimension that
comes out equal in both runs is a number; one that differs is written as a product of symbols plus an offset.
So the implementations of the operators are the only place that knows their shapes, and `Shape -> Gather -> Concat ->
Reshape` chains collapse by themselves.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import onnx_ir as ir
import torch

from ..dtypes import by_name, from_onnx, from_torch
from ..errors import GraphError, QontextError, UnsupportedOperatorError
from ..graph.attributes import values_of
from ..graph.dims import AnyDim, Dim, Shape, text, to_onnx
from ..graph.dims import from_onnx as dims_from_onnx
from ..graph.tensors import constant_of
from .call import Operand
from .declare import DOMAIN, Op
from .standard.catalogue import lookup as standard_lookup
from .standard.declare import Context, StandardOp

_PRIMES = ((17, 29), (19, 37), (23, 43), (13, 31), (11, 41), (7, 47), (53, 61), (59, 67), (71, 83), (73, 97))
_REAL_LIMIT = 1 << 22  # whole-number constants up to this many elements are followed by value
_FLOAT_LIMIT = 1024
_JOINT_LIMIT = 1 << 26  # operands are followed by value while no broadcast of them can have more elements
_REAL_BYTES = 1 << 30  # results are kept by value up to this much in all
_KEY_ELEMENTS = 16
Pair = tuple[torch.Tensor, torch.Tensor]
Runs = list[Sequence[torch.Tensor | None]]


class Inference:
    """Knowledge about the values of one graph. `ops` are the declared operators it may meet, by name."""

    def __init__(self, ops: Mapping[str, Op], opset: int = 23):
        self.ops = ops
        self.opset = opset
        self.sizes: dict[str, tuple[int, int]] = {}
        self.known: dict[ir.Value, Pair] = {}
        self._real_bytes = 0
        # Layers repeat: what an operator makes of operands seen before need not be worked out again.
        self._seen: dict[tuple[object, ...], Runs] = {}

    # -- sizes -------------------------------------------------------------------------------------------------

    def size(self, name: str) -> tuple[int, int]:
        """The two numbers that stand for a named size."""
        if name not in self.sizes:
            n = len(self.sizes)
            low, high = _PRIMES[n % len(_PRIMES)]
            turn = n // len(_PRIMES)
            self.sizes[name] = (low + 101 * turn, high + 103 * turn)
        return self.sizes[name]

    def fresh(self, pair: tuple[int, int] | None = None) -> Dim:
        """A new symbol for a dimension of which no form is known."""
        name = f"u{sum(s.startswith('u') for s in self.sizes)}"
        if pair is not None:
            self.sizes[name] = pair
        else:
            self.size(name)
        return Dim((name,))

    def dim_of(self, a: int, b: int) -> AnyDim:
        """The dimension that is `a` in the first run and `b` in the second."""
        if a == b:
            return a
        names = list(self.sizes)
        for count in (1, 2, 3):
            for chosen in combinations_with_replacement(names, count):
                x = y = 1
                for name in chosen:
                    x, y = x * self.sizes[name][0], y * self.sizes[name][1]
                if a % x == 0 and b % y == 0 and a // x == b // y:
                    return Dim(tuple(sorted(chosen)), a // x)
        for name in names:
            x, y = self.sizes[name]
            if a - x == b - y:
                return Dim((name,), 1, a - x)
        return self.fresh((a, b))

    def numbers(self, dim: AnyDim) -> tuple[int, int]:
        """The two numbers of a dimension."""
        if dim is None:
            dim = self.fresh()
        if isinstance(dim, int):
            return dim, dim
        for name in dim.symbols:
            self.size(name)
        first = {n: s[0] for n, s in self.sizes.items()}
        second = {n: s[1] for n, s in self.sizes.items()}
        return dim.value(first), dim.value(second)

    # -- values ------------------------------------------------------------------------------------------------

    def declare(self, value: ir.Value) -> None:
        """Makes an input of the graph known by its dtype and shape."""
        if value.dtype is None or value.shape is None:
            return
        shape = dims_from_onnx(value.shape)
        assert shape is not None
        self._set_shape(value, from_onnx(value.dtype).name, shape)

    def _set_shape(self, value: ir.Value, dtype: str, shape: Shape) -> None:
        pairs = [self.numbers(d) for d in shape]
        kind = by_name(dtype).torch
        self.known[value] = (
            torch.empty([p[0] for p in pairs], dtype=kind, device="meta"),
            torch.empty([p[1] for p in pairs], dtype=kind, device="meta"),
        )

    def look(self, value: ir.Value | None) -> Pair | None:
        """The two abstract tensors of a value; None when nothing is known."""
        if value is None:
            return None
        if value not in self.known:
            constant = _big_weight(value)
            if constant is None:
                constant = constant_of(value)
            if constant is not None:
                if not constant.is_meta and _is_big(constant.numel(), constant.dtype):
                    constant = torch.empty(constant.shape, dtype=constant.dtype, device="meta")
                self.known[value] = (constant, constant)
            elif value.producer() is None:
                self.declare(value)
        return self.known.get(value)

    def shape(self, value: ir.Value) -> Shape | None:
        """The symbolic shape of a value."""
        pair = self.look(value)
        if pair is None:
            return dims_from_onnx(value.shape)
        return tuple(self.dim_of(a, b) for a, b in zip(pair[0].shape, pair[1].shape, strict=True))

    def values(self, value: ir.Value | None) -> list[AnyDim] | None:
        """The contents of a small whole-number tensor as dimensions, flattened; None when they are not known."""
        pair = self.look(value)
        if pair is None or pair[0].device.type == "meta" or pair[0].is_floating_point():
            return None
        a, b = pair[0].flatten().tolist(), pair[1].flatten().tolist()
        if len(a) != len(b) or len(a) > 64:
            return None
        return [self.dim_of(int(x), int(y)) for x, y in zip(a, b, strict=True)]

    def operand(self, value: ir.Value | None) -> Operand | None:
        """The operand that a call sees for this value."""
        if value is None:
            return None
        constant = constant_of(value)
        if constant is not None:
            return Operand(from_torch(constant.dtype).name, tuple(constant.shape), constant)
        dtype = from_onnx(value.dtype).name if value.dtype is not None else "float32"
        return Operand(dtype, self.shape(value))

    # -- nodes -------------------------------------------------------------------------------------------------

    def run(self, graph: ir.Graph) -> None:
        """Infers every node of a graph in order. Raises GraphError for contradictions and unknown operators."""
        self.opset = graph.opset_imports.get("", self.opset)
        for value in graph.inputs:
            self.declare(value)
        for node in graph:
            self.infer(node)

    def infer(self, node: ir.Node) -> None:
        """Infers the outputs of one node and writes dtype and shape into them."""
        if node.domain == DOMAIN or (node.op_type in self.ops and node.domain == self.ops[node.op_type].domain):
            self._infer_declared(node)
        elif node.domain in ("", "ai.onnx"):
            self._infer_standard(node)
        else:
            raise UnsupportedOperatorError(
                f"node {node.name!r} uses operator {node.op_type!r} of domain {node.domain!r}; qontext knows ai.onnx, "
                f"{DOMAIN!r} and the operators of plugins given to build(plugins=[...])"
            )

    def _infer_declared(self, node: ir.Node) -> None:
        op = self.ops.get(node.op_type)
        if op is None:
            raise UnsupportedOperatorError(f"node {node.name!r} uses unknown operator {node.domain}::{node.op_type}")
        attributes = op.complete_attributes(values_of(node))
        outputs = op.infer_outputs([self.operand(v) for v in node.inputs], attributes)
        for value, operand in zip(node.outputs, outputs, strict=False):
            if operand is None or value.name == "":
                continue
            value.dtype = operand.type.onnx
            if operand.shape is not None:
                self._set_shape(value, operand.dtype, operand.shape)
                value.shape = to_onnx(self.shape(value))

    def _infer_standard(self, node: ir.Node) -> None:
        op = standard_lookup(node.op_type)
        if op is None:
            raise UnsupportedOperatorError(f"node {node.name!r}: qontext has no implementation of ONNX {node.op_type}")
        pairs = [self.look(v) for v in node.inputs]
        if op.data_dependent or any(p is None and v is not None for p, v in zip(pairs, node.inputs, strict=True)):
            return
        attributes = values_of(node)
        context = Context(self.opset, tuple(bool(v.name) for v in node.outputs))
        key = _key(node.op_type, attributes, context, pairs)
        runs = self._seen.get(key) if key is not None else None
        if runs is None:
            try:
                given = [[None if p is None else p[which] for p in pairs] for which in (0, 1)]
                runs = [self._run(op, tensors, attributes, context) for tensors in given]
            except NotImplementedError:
                return
            except QontextError as error:
                raise type(error)(f"node {node.name!r}: {error.message}") from error
            except (RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AssertionError) as error:
                raise self._contradiction(node, error) from error
            if key is not None and all(t is None or t.is_meta for run in runs for t in run):
                self._seen[key] = runs
        for value, a, b in zip(node.outputs, *runs, strict=False):
            if a is None or b is None or value is None:
                continue
            if a.dim() != b.dim():
                continue
            try:
                value.dtype = from_torch(a.dtype).onnx
            except KeyError:
                raise UnsupportedOperatorError(
                    f"node {node.name!r} ({node.op_type}) computes {a.dtype}, which qontext does not hold"
                ) from None
            self.known[value] = (a, b)
            value.shape = to_onnx(self.shape(value))

    def _run(
        self, op: StandardOp, given: Sequence[torch.Tensor | None], attributes: Mapping[str, Any], context: Context
    ) -> Sequence[torch.Tensor | None]:
        """One abstract run. Big real tensors become shapes, so that a small file cannot take much memory."""
        with torch.no_grad():
            result = op.run(_on_one_device(given, op.shape_operands), attributes, context)
        results = result if isinstance(result, tuple) else (result,)
        kept = []
        for tensor in results:
            if tensor is not None and not tensor.is_meta:
                self._real_bytes += tensor.nbytes
                if tensor.numel() > _REAL_LIMIT or self._real_bytes > _REAL_BYTES:
                    tensor = torch.empty_like(tensor, device="meta")
            kept.append(tensor)
        return kept

    def _contradiction(self, node: ir.Node, error: Exception) -> GraphError:
        shapes = ", ".join(f"{v.name}{text(self.shape(v))}" for v in node.inputs if v is not None)
        return GraphError(f"node {node.name!r} ({node.op_type}) does not fit its inputs {shapes}: {_first_line(error)}")


def _is_big(elements: int, dtype: torch.dtype) -> bool:
    """True for constants whose values say nothing about shapes."""
    return elements > (_FLOAT_LIMIT if dtype.is_floating_point else _REAL_LIMIT)


def _big_weight(value: ir.Value) -> torch.Tensor | None:
    """The shape of a big weight, without reading it from its file; None for other values."""
    held = value.const_value
    if held is None or not value.is_initializer():
        return None
    try:
        kind = from_onnx(held.dtype)
    except KeyError:
        return None
    # What is narrower than a byte is held in another type than it is declared in.
    if kind.bits < 8:
        return None
    shape = tuple(held.shape.numpy())
    return torch.empty(shape, dtype=kind.torch, device="meta") if _is_big(math.prod(shape), kind.torch) else None


def _on_one_device(tensors: Sequence[torch.Tensor | None], shape_operands: Sequence[int]) -> list[torch.Tensor | None]:
    """Data tensors all on meta as soon as one of them is, or they are big together; shape operands stay as they are."""
    data = [t for i, t in enumerate(tensors) if t is not None and i not in shape_operands]
    if not any(t.device.type == "meta" for t in data) and _largest_result(data) <= _JOINT_LIMIT:
        return list(tensors)
    return [
        t if t is None or i in shape_operands or t.device.type == "meta" else t.to("meta")
        for i, t in enumerate(tensors)
    ]


def _largest_result(tensors: Sequence[torch.Tensor]) -> int:
    """More elements than these operands give when they are broadcast, joined, multiplied or looked up in each other."""
    counts = sorted((max(1, t.numel()) for t in tensors), reverse=True)
    rank = max((t.dim() for t in tensors), default=0)
    axes = [[t.shape[-a] for t in tensors if t.dim() >= a] for a in range(1, rank + 1)]
    return max(math.prod(counts[:2]) * len(counts), math.prod(max(sizes) for sizes in axes))


def _key(
    op_type: str, attributes: Mapping[str, Any], context: Context, pairs: Sequence[Pair | None]
) -> tuple[object, ...] | None:
    """All that the abstract runs of a node depend on; None where that is too much to compare."""
    parts: list[object] = [op_type, context]
    for name, value in attributes.items():
        if not isinstance(value, (int, float, str, list)):
            return None
        parts += [name, tuple(value) if isinstance(value, list) else value]
    for pair in pairs:
        for tensor in pair or (None, None):
            if tensor is None:
                parts.append(None)
            elif tensor.is_meta:
                parts += ["meta", tensor.dtype, tensor.shape]
            elif tensor.numel() <= _KEY_ELEMENTS:
                parts += ["real", tensor.dtype, tensor.shape, tuple(tensor.reshape(-1).tolist())]
            else:
                return None
    return tuple(parts)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
