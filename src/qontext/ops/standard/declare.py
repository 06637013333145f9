"""What qontext says about a standard ONNX operator: its name, its opsets, and one PyTorch implementation.

The implementation is used three times: by the executor, by constant folding and by shape inference. Shape inference
runs it with data tensors on torch's `meta` device and shape arithmetic in real integer tensors, so an implementation
must never read the *values* of data tensors (no `.item()`, no data-dependent branches); it may read the values of
operands that ONNX defines as shapes, axes, sizes or repeats, which are always real tensors on the CPU.

Rules that every implementation keeps:

- An optional input that is absent is None, or missing at the end of `inputs`.
- A node with one output gives a tensor. A node with several gives a tuple with one entry for each output of the
  node, None where the output is not wanted. Operators with a variable number of outputs always give a tuple.
- A result may be an input itself or a view of one (Identity, Reshape, Transpose, Expand, Slice, Split, ...); it need
  not be contiguous. Inputs are never written to.
- Real tensors on the CPU meet tensors of another device by moving there; `meta` wins over all.
- Four- and two-bit integers are held one to a byte: INT4 and INT2 in int8, UINT4 and UINT2 in uint8.
- `NotImplementedError` means: a value is needed that a `meta` tensor does not have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Inputs = Sequence[torch.Tensor | None]
Attributes = Mapping[str, Any]
Result = torch.Tensor | tuple[torch.Tensor | None, ...]


@dataclass(frozen=True)
class Context:
    """What an implementation may know beside inputs and attributes.

    opset:    the version of the `ai.onnx` domain that the graph imports
    outputs:  one entry for each output of the node, in order: is it wanted? (An output that nobody reads is False.)
    """

    opset: int
    outputs: tuple[bool, ...] = (True,)

    def wants(self, index: int) -> bool:
        """True when the node has an output of that position and somebody reads it."""
        return index < len(self.outputs) and self.outputs[index]

    def results(self, *values: torch.Tensor | None) -> Result:
        """The result of an operator with optional outputs: a tensor for one output, a tuple for several."""
        first = values[0]
        if len(self.outputs) == 1 and first is not None:
            return first
        return tuple(v if self.wants(i) else None for i, v in enumerate(values[: len(self.outputs)]))


Run = Callable[[Inputs, Attributes, Context], Result]


@dataclass(frozen=True)
class StandardOp:
    """A standard operator.

    name:    the ONNX op_type in the default domain
    since:   the oldest opset whose meaning `run` implements
    run:     the implementation
    shape_operands: positions of inputs whose values are read on the host (shapes, axes, sizes)
    data_dependent: True when output shapes depend on values of data (NonZero); shape inference leaves them unknown
    source:  the specification
    """

    name: str
    since: int
    run: Run
    shape_operands: tuple[int, ...] = field(default=())
    data_dependent: bool = False

    @property
    def source(self) -> str:
        return f"https://onnx.ai/onnx/operators/onnx__{self.name}.html"
