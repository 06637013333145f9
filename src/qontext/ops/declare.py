"""An operator, declared once.

From one `Op` object come shape and dtype inference, argument checks, the builder's method, the conformance test,
bench inputs, the ONNX function body and the catalogue page. Called on torch tensors an operator computes at once;
called on graph values it adds a node to their network.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch

from ..dtypes import FLOATS, INTS, from_torch
from ..errors import ArgumentError, DTypeError, ShapeError, all_problems
from ..graph.dims import Shape
from . import axes_match
from .call import Call, Cost, Device, Kernel, Operand, Result

REQUIRED = object()
DOMAIN = "qontext"


@dataclass(frozen=True)
class Param:
    """One input or output.

    axes:      "B S E", "... E", alternatives with "|", products "3*E"; letters are those of `qontext.axes`;
               "any" leaves the shape to the operator's `check`
    dtype:     a type variable of the operator ("T"), or names joined with "|" ("int32|int64")
    optional:  may be absent (None)
    host:      its values are read on the host: the executor keeps it on the CPU
    """

    name: str
    axes: str
    dtype: str = "T"
    optional: bool = False
    host: bool = False
    doc: str = ""

    @property
    def has_rows(self) -> bool:
        """Its axes begin with "...", so that it may have one row a token (see `Op.token_wise`)."""
        return self.axes.split()[:1] == ["..."]


@dataclass(frozen=True)
class Attribute:
    """A compile-time setting: `kind` is int, float, str, bool or list; no default means it must be given."""

    name: str
    kind: type
    default: Any = REQUIRED
    choices: tuple[Any, ...] = ()
    doc: str = ""


@dataclass(frozen=True)
class Case:
    """Inputs for the conformance test, or (with `bench`) for timing.

    make:      (generator, float dtype) -> one tensor or None for each input of the operator, on the CPU
    outputs:   names of wanted outputs, all required ones when empty
    tolerance: factors on the dtype's tolerance, by dtype name, with their `reason`
    levels:    results were rounded to this many levels on the way, or are such a level: two kernels that are both right
               may round what lies half way either way. Their results may be a quarter of a level apart in all, and
               whole numbers by one in at most one place of a hundred
    """

    name: str
    make: Callable[[torch.Generator, torch.dtype], Sequence[torch.Tensor | None]]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = FLOATS
    tolerance: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    bench: bool = False
    levels: int = 0


Infer = Callable[[tuple[Operand | None, ...], Mapping[str, Any]], tuple[Operand | None, ...]]


@dataclass(frozen=True)
class Op:
    """A declared operator.

    reference: (*inputs, **attributes) -> output or tuple of ALL declared outputs (None for those it was not asked
               for, if they cost extra); short, no tricks, computing in the dtype of its inputs; it is given float32
               or float64 floats only, but what is updated or in eight bits in its own dtype, and leaves all inputs as
               they are
    infer:     output operands from input operands, where the axes alone do not say it
    cost:      least bytes and flops of a call whose shapes are all numbers
    body:      text of an ONNX function body (statements of the ONNX text format over the declared names) for this
               variant of the operator, or None where standard operators cannot say it
    check:     further validity rules: returns sentences, one a problem
    updates:   {"output": "input"}: that output is that input, written in place (declared aliasing)
    collective: name of the process-group axis it communicates over ("tp"), or None
    token_wise: every output row depends on the same row of the inputs only, whatever the number of rows and leading
               axes. Rows are what "..." stands for at the beginning of an operand's axes; inputs without it are shared
               by all rows. Padding removal runs such operators on packed tokens
    """

    name: str
    doc: str
    inputs: tuple[Param, ...]
    outputs: tuple[Param, ...]
    reference: Callable[..., Result]
    attributes: tuple[Attribute, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    cases: Callable[[], Iterable[Case]] = tuple
    infer: Infer | None = None
    cost: Callable[[Call], Cost] | None = None
    body: Callable[[Call], str | None] | None = None
    check: Callable[[tuple[Operand | None, ...], Mapping[str, Any]], list[str]] | None = None
    types: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"T": FLOATS, "I": INTS})
    updates: Mapping[str, str] = field(default_factory=dict)
    collective: str | None = None
    token_wise: bool = False
    source: str = ""
    version: int = 1
    domain: str = DOMAIN

    @property
    def method(self) -> str:
        """The builder's method name: "QKVToContext" -> "qkv_to_context"."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.name).lower()

    def input_index(self, name: str) -> int:
        return next(i for i, p in enumerate(self.inputs) if p.name == name)

    def output_index(self, name: str) -> int:
        return next(i for i, p in enumerate(self.outputs) if p.name == name)

    @property
    def updated_inputs(self) -> dict[int, int]:
        """Declared aliasing by place: {output: input that it is, written in place}."""
        return {self.output_index(o): self.input_index(i) for o, i in self.updates.items()}

    def complete_attributes(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All attributes with defaults filled in. Raises ArgumentError naming every wrong one."""
        problems, result = [], {}
        known = {a.name: a for a in self.attributes}
        for name in given:
            if name not in known:
                problems.append(f"unknown attribute {name!r}; {self.name} has {', '.join(known) or 'none'}")
        for attribute in self.attributes:
            value = given.get(attribute.name, attribute.default)
            if value is REQUIRED:
                problems.append(f"attribute {attribute.name!r} ({attribute.kind.__name__}) is missing")
                continue
            if attribute.kind is float and isinstance(value, int):
                value = float(value)
            if attribute.kind is bool and isinstance(value, int):
                value = bool(value)
            if attribute.kind is list and isinstance(value, tuple):
                value = list(value)
            if not isinstance(value, attribute.kind) or (attribute.kind is int and isinstance(value, bool)):
                problems.append(
                    f"attribute {attribute.name!r} is {value!r} ({type(value).__name__}), "
                    f"expected {attribute.kind.__name__}"
                )
            elif attribute.choices and value not in attribute.choices:
                problems.append(f"attribute {attribute.name!r} is {value!r}, allowed: {attribute.choices}")
            result[attribute.name] = value
        if problems:
            raise ArgumentError(all_problems(f"{self.name}", problems))
        return result

    def infer_outputs(
        self, inputs: Sequence[Operand | None], attributes: Mapping[str, Any]
    ) -> tuple[Operand | None, ...]:
        """Checks inputs and says dtype and shape of every declared output.

        Raises ShapeError or DTypeError naming each tensor, what it got and what was expected.
        """
        operands = tuple(inputs) + (None,) * (len(self.inputs) - len(inputs))
        if len(operands) > len(self.inputs):
            raise ArgumentError(f"{self.name}: {len(operands)} inputs given, at most {len(self.inputs)} allowed")
        shape_problems, dtype_problems = [], []
        axes: axes_match.Axes = {}
        bound: dict[str, str] = {}
        for param, operand in zip(self.inputs, operands, strict=True):
            if operand is None:
                if not param.optional:
                    shape_problems.append(f"input {param.name!r} is missing")
                continue
            allowed = self.types.get(param.dtype, tuple(param.dtype.split("|")))
            if operand.dtype not in allowed:
                dtype_problems.append(f"input {param.name!r} is {operand.dtype}, expected {' or '.join(allowed)}")
            elif param.dtype in self.types and bound.setdefault(param.dtype, operand.dtype) != operand.dtype:
                dtype_problems.append(
                    f"input {param.name!r} is {operand.dtype}, but {bound[param.dtype]} is used elsewhere in this call"
                )
            problem = axes_match.match(param.axes, operand.shape, axes)
            if problem:
                shape_problems.append(f"input {param.name!r} {problem}")
        if dtype_problems:
            raise DTypeError(all_problems(self.name, dtype_problems))
        if not shape_problems and self.check is not None:
            shape_problems += self.check(operands, attributes)
        if shape_problems:
            raise ShapeError(all_problems(self.name, shape_problems))
        if self.infer is not None:
            return self.infer(operands, attributes)
        result: list[Operand | None] = []
        for param in self.outputs:
            dtype = bound.get(param.dtype, param.dtype if param.dtype not in self.types else "float32")
            shape: Shape | None = axes_match.build(param.axes, axes)
            result.append(Operand(dtype, shape))
        return tuple(result)

    def arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Splits a Python call into the list of all inputs (None where absent) and the attributes given."""
        names = [p.name for p in self.inputs]
        if len(args) > len(names):
            raise ArgumentError(f"{self.name}: {len(args)} positional inputs given, at most {len(names)}: {names}")
        values = list(args) + [None] * (len(names) - len(args))
        attributes = {}
        for key, value in kwargs.items():
            if key in names:
                index = names.index(key)
                if index < len(args):
                    raise ArgumentError(f"{self.name}: input {key!r} is given twice, by position and by name")
                values[index] = value
            else:
                attributes[key] = value
        return values, attributes

    def wanted(self, outputs: Sequence[str]) -> tuple[bool, ...]:
        """Which outputs a caller gets: the named ones, or all that are not optional."""
        names = [p.name for p in self.outputs]
        for name in outputs:
            if name not in names:
                raise ArgumentError(f"{self.name}: no output {name!r}; it has {names}")
        return tuple(p.name in outputs if outputs else not p.optional for p in self.outputs)

    def __call__(self, *args: Any, outputs: Sequence[str] = (), name: str | None = None, **kwargs: Any) -> Any:
        """Computes on torch tensors, or adds a node on graph values.

        Args:
            args, kwargs: inputs by position or name, attributes by name.
            outputs: names of the wanted outputs; all that are not optional when left out.
            name: name of the node (graph values only).
        Returns:
            One tensor or value, or a tuple when several outputs are wanted.
        """
        values, attributes = self.arguments(args, kwargs)
        for value in values:
            if isinstance(value, ir.Value):
                network = value.meta.get("network")
                if network is None:
                    raise ArgumentError(f"{self.name}: the value {value.name!r} belongs to no network")
                return network.add(self, values, attributes, outputs=outputs, name=name)
        from .eager import run_eagerly  # the eager path needs Op, so it cannot be imported above

        return run_eagerly(self, values, attributes, self.wanted(outputs))


def operand_of(tensor: torch.Tensor | None) -> Operand | None:
    """The operand that describes a tensor (not a constant)."""
    return None if tensor is None else Operand(from_torch(tensor.dtype).name, tuple(tensor.shape))


def call_of(
    op: Op,
    tensors: Sequence[torch.Tensor | None],
    attributes: Mapping[str, Any],
    wanted: Sequence[bool],
    device: Device | None = None,
) -> Call:
    """The checked call that applies `op` to tensors. Raises ArgumentError, ShapeError or DTypeError."""
    for param, tensor in zip(op.inputs, tensors, strict=False):
        if tensor is not None and not isinstance(tensor, torch.Tensor):
            raise ArgumentError(
                f"{op.name}: input {param.name!r} is a {type(tensor).__name__}, expected a torch.Tensor"
            )
    complete = op.complete_attributes(attributes)
    inputs = tuple(operand_of(t) for t in tensors)
    outputs = op.infer_outputs(inputs, complete)
    return Call(
        op.name,
        inputs + (None,) * (len(op.inputs) - len(inputs)),
        tuple(o if w else None for o, w in zip(outputs, wanted, strict=True)),
        complete,
        device or Device(),
    )
