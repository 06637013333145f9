"""What qontext says about a standard ONNX operator: its name, its opsets, and one PyTorch implementation.

The implementation is used three times: by the executor, by constant folding and by shape inference. Shape inference
runs it with data tensors on torch's `meta` device and shape arithmetic in real integer tensors, so an implementation
must never read the *values* of data tensors (no `.item()`, no data-dependent branches); it may read the values of
operands that ONNX defines as shapes, axes, sizes or repeats, which are always real tensors on the CPU.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Inputs = Sequence[torch.Tensor | None]
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Context:
    """What an implementation may know beside inputs and attributes.

    opset:    the version of the `ai.onnx` domain that the graph imports
    outputs:  which outputs are wanted, in order (a trailing optional output that nobody reads is False)
    """

    opset: int
    outputs: tuple[bool, ...] = (True,)


Run = Callable[[Inputs, Attributes, Context], torch.Tensor | tuple[torch.Tensor | None, ...]]


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
