"""One use of an operator: what its kernels are asked about, and what its costs are counted from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ..dtypes import BY_NAME, DType
from ..graph.dims import Shape

Tensors = Sequence[torch.Tensor | None]
Result = torch.Tensor | tuple[torch.Tensor | None, ...]
Attributes = Mapping[str, Any]


@dataclass(frozen=True)
class Device:
    """Where a step runs.

    type:        "cpu" or "cuda"
    capability:  instruction sets or compute capability, for example {"avx512", "amx_bf16"} or {"sm_90"}
    name:        the product name, a key of tuning records
    place:       where torch holds its tensors, when `type` alone does not say it ("cuda:1")
    """

    type: str = "cpu"
    capability: frozenset[str] = frozenset()
    name: str = ""
    place: str = ""

    @property
    def torch(self) -> torch.device:
        """The device of its tensors."""
        return torch.device(self.place or self.type)


@dataclass(frozen=True)
class Operand:
    """One input or output of a call.

    dtype:     name in `qontext.dtypes`
    shape:     ints and symbolic dimensions; None when the rank is unknown
    constant:  the tensor itself when it is a weight (kernels may repack it when they are bound)
    layout:    "row_major", or the name of a packed layout that a kernel produced
    """

    dtype: str
    shape: Shape | None
    constant: torch.Tensor | None = None
    layout: str = "row_major"

    @property
    def type(self) -> DType:
        return BY_NAME[self.dtype]

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)


@dataclass(frozen=True)
class Call:
    """An operator with its operands: `inputs[i]` is None where an optional input is absent,
    `outputs[i]` is None where nobody wants that output."""

    op: str
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand | None, ...]
    attributes: Attributes
    device: Device = field(default_factory=Device)

    def input(self, index: int) -> Operand | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def wants(self, index: int) -> bool:
        return index < len(self.outputs) and self.outputs[index] is not None


class Bound(Protocol):
    """A kernel made ready for one call: repacked weights and chosen variants are closed over.

    Called with all inputs of the operator in order. `out`, when given, holds a tensor for every wanted output,
    which the kernel fills; a kernel with `writes_out = False` is never given one.
    """

    def __call__(self, inputs: Tensors, out: Tensors | None = None) -> Result: ...


@dataclass(frozen=True)
class Kernel:
    """One way of computing an operator.

    name:      unique within the operator, shown in reports ("native.attention", "onednn.linear")
    device:    "cpu" or "cuda"
    supports:  None when it can run this call, else one sentence with the number that failed
    bind:      makes it ready
    writes_out: True when it fills tensors that the caller allocated (the arena)
    inplace:   pairs (output, input) that may share memory
    replays:   whether a run of this call is one call of the kernel library and nothing else, whose arguments are the
               same for the same contiguous tensors, so that it can be noted and made again; None: never
    """

    name: str
    device: str
    supports: Callable[[Call], str | None]
    bind: Callable[[Call], Bound]
    writes_out: bool = False
    inplace: tuple[tuple[int, int], ...] = ()
    replays: Callable[[Call], bool] | None = None
    made_of: tuple["Kernel", ...] = ()


@dataclass(frozen=True)
class Cost:
    """Least work of a call: bytes moved (each input read once, each output written once) and operations."""

    bytes: float
    flops: float
