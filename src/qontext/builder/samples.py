"""Made-up operands of a call at a representative size, for timing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ..graph.dims import Dim, Shape
from ..ops.call import Call, Operand
from ..ops.declare import Op

_SEQUENCES = ("B", "batch", "batch_size", "rows")
_LENGTHS = ("S", "Skv", "sequence", "sequence_length", "seq", "seq_len")


@dataclass(frozen=True)
class Size:
    """A batch of equally long sequences."""

    sequences: int
    length: int

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    def __str__(self) -> str:
        return f"{self.sequences}x{self.length}"

    def of(self, symbol: str) -> int:
        """The number that a symbol stands for; one that is not known as a batch or a length counts tokens."""
        return self.sequences if symbol in _SEQUENCES else self.length if symbol in _LENGTHS else self.tokens

    def value(self, dim: Dim) -> int:
        """The number of a dimension."""
        return dim.value({s: self.of(s) for s in dim.symbols})


USUAL = Size(4, 128)


def numeric_call(call: Call, sizes: Mapping[str, int]) -> Call:
    """The call with numbers for all sizes that are known."""

    def numbers(operand: Operand | None) -> Operand | None:
        if operand is None or operand.shape is None:
            return operand
        shape: Shape = tuple(
            d.value(sizes) if isinstance(d, Dim) and all(s in sizes for s in d.symbols) else d for d in operand.shape
        )
        return replace(operand, shape=shape)

    return replace(call, inputs=tuple(map(numbers, call.inputs)), outputs=tuple(map(numbers, call.outputs)))


def sized_call(call: Call, size: Size) -> Call:
    """The call with the numbers of a size for all symbols."""
    operands = [o for o in (*call.inputs, *call.outputs) if o is not None and o.shape is not None]
    symbols = {s for o in operands for d in o.shape or () if isinstance(d, Dim) for s in d.symbols}
    return numeric_call(call, {s: size.of(s) for s in symbols})


def shape_at(operand: Operand, size: Size) -> tuple[int, ...]:
    """The shape of an operand; an unknown dimension counts tokens."""
    return tuple(d if isinstance(d, int) else size.tokens if d is None else size.value(d) for d in operand.shape or ())


def sample_inputs(op: Op, call: Call, size: Size = USUAL) -> list[torch.Tensor | None] | None:
    """Random inputs for a call where its device wants them; None when an input cannot be made up."""
    place = call.device.torch
    generator = torch.Generator(place).manual_seed(0)
    made: list[torch.Tensor | None] = []
    for param, operand in zip(op.inputs, call.inputs, strict=True):
        if operand is None or operand.constant is not None:
            made.append(None if operand is None else operand.constant)
            continue
        if operand.shape is None:
            return None
        tensor = _sample(param.name, operand, shape_at(operand, size), size, generator)
        if tensor is None:
            return None
        made.append(tensor.cpu() if param.host else tensor.to(place))
    return made


def _sample(
    name: str, operand: Operand, shape: tuple[int, ...], size: Size, generator: torch.Generator
) -> torch.Tensor | None:
    kind = operand.type.torch
    if name.startswith("cu_seqlens"):
        return torch.arange(size.sequences + 1, dtype=torch.int32) * size.length
    if name.startswith("max_seqlen"):
        return torch.tensor(size.length, dtype=torch.int32)
    if name in ("lengths", "key_lengths", "prefix_lengths"):
        return torch.full(shape, size.length, dtype=kind)
    if name == "token_index":
        return torch.arange(size.tokens)
    if operand.type.is_float:
        return torch.randn(shape, generator=generator, device=generator.device).to(kind)
    if operand.dtype == "bool" or name in ("mask", "attention_mask"):
        return torch.ones(shape, dtype=kind)
    if operand.dtype == "int8":
        return torch.randint(-128, 128, shape, generator=generator, dtype=kind, device=generator.device)
    if name in ("input_ids", "token_type_ids", "position_ids"):
        return torch.zeros(shape, dtype=kind)
    return None
