"""Symbolic dimensions: `coefficient * product of symbols + offset`, enough for every shape a Transformer needs.

A dimension is a Python int when it is known, a `Dim` when it depends on named sizes of the inputs, and None when
nothing is known. In an `onnx_ir` graph a `Dim` is stored as the text of `str(dim)`, for example "B*S" or "S+1".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

_TERM = re.compile(r"^(?:(\d+)\*)?([A-Za-z_][\w.]*(?:\*[A-Za-z_][\w.]*)*)([+-]\d+)?$")


@dataclass(frozen=True)
class Dim:
    """coefficient * symbols[0] * symbols[1] ... + offset, symbols sorted by name."""

    symbols: tuple[str, ...]
    coefficient: int = 1
    offset: int = 0

    def __str__(self) -> str:
        body = "*".join(self.symbols)
        if self.coefficient != 1:
            body = f"{self.coefficient}*{body}"
        return f"{body}{self.offset:+d}" if self.offset else body

    def value(self, sizes: Mapping[str, int]) -> int:
        """The number this dimension has under `sizes`. Raises KeyError for a symbol without size."""
        number = self.coefficient
        for symbol in self.symbols:
            number *= sizes[symbol]
        return number + self.offset


AnyDim = int | Dim | None
Shape = tuple[AnyDim, ...]


def symbol(name: str) -> Dim:
    """The dimension that is exactly the named size."""
    return Dim((name,))


def parse_dim(text: str | int | None) -> AnyDim:
    """The dimension written as `text` ("B*S", "2*S+1", "768"); None when the text is not of that form."""
    if text is None or isinstance(text, int):
        return text
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    match = _TERM.match(text.replace(" ", ""))
    if match is None:
        return None
    coefficient, symbols, offset = match.groups()
    return Dim(tuple(sorted(symbols.split("*"))), int(coefficient or 1), int(offset or 0))


def times(a: AnyDim, b: AnyDim) -> AnyDim:
    """The product of two dimensions, None where it has no such form."""
    if a is None or b is None:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if isinstance(a, int):
        a, b = b, a
    assert isinstance(a, Dim)
    if isinstance(b, int):
        return 0 if b == 0 else Dim(a.symbols, a.coefficient * b, a.offset * b)
    if a.offset or b.offset:
        return None
    return Dim(tuple(sorted(a.symbols + b.symbols)), a.coefficient * b.coefficient)


def product(dims: Sequence[AnyDim]) -> AnyDim:
    """The product of all dimensions (1 for none)."""
    result: AnyDim = 1
    for dim in dims:
        result = times(result, dim)
    return result


def from_onnx(shape: ir.Shape | None) -> Shape | None:
    """The dimensions of an `onnx_ir` shape; None when the rank is unknown."""
    if shape is None:
        return None
    return tuple(d if isinstance(d, int) else parse_dim(d.value) for d in shape)


def to_onnx(shape: Sequence[AnyDim] | None) -> ir.Shape | None:
    """The `onnx_ir` shape of dimensions."""
    if shape is None:
        return None
    return ir.Shape([str(d) if isinstance(d, Dim) else d for d in shape])


def text(shape: Sequence[AnyDim] | None) -> str:
    """A shape as people read it: "[B, S, 768]", "?" for what is unknown."""
    if shape is None:
        return "[?]"
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
