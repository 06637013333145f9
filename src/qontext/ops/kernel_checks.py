"""Questions that several `supports(call)` functions ask: each answers None, or one sentence with what failed."""

from collections.abc import Sequence

from ..graph.dims import product, text
from .call import Call, Operand


def dtypes_are(call: Call, allowed: Sequence[str]) -> str | None:
    """All floating point operands of the call are of one of the allowed dtypes, and of the same one."""
    found = {o.dtype for o in (*call.inputs, *call.outputs) if o is not None and o.type.is_float}
    if len(found) > 1:
        return f"its operands mix {', '.join(sorted(found))}; the kernel takes one float dtype"
    wrong = found - set(allowed)
    return f"its operands are {wrong.pop()}; the kernel takes {', '.join(allowed)}" if wrong else None


def rank_known(operand: Operand | None, name: str) -> str | None:
    """The rank of an operand is known."""
    return f"the rank of {name} is unknown" if operand is not None and operand.shape is None else None


def last_axis_known(operand: Operand, name: str) -> str | None:
    """The size of the last axis of an operand is a number."""
    if operand.shape and isinstance(operand.shape[-1], int):
        return None
    return f"the last axis of {name} has to be a number, its shape is {text(operand.shape)}"


def element_count(operand: Operand | None) -> int:
    """How many elements an operand has; 0 when it is absent. Raises ValueError for a symbolic shape."""
    if operand is None:
        return 0
    count = None if operand.shape is None else product(operand.shape)
    if not isinstance(count, int):
        raise ValueError(f"a cost needs numbers for sizes, the shape is {text(operand.shape)}")
    return count


def operand_bytes(call: Call) -> float:
    """Bytes moved when every input is read once and every wanted output is written once."""
    return sum(element_count(o) * o.type.bits / 8 for o in (*call.inputs, *call.outputs) if o is not None)


def last_axis(operand: Operand | None) -> int:
    """The size of the last axis, of which `last_axis_known` has said that it is a number."""
    assert operand is not None
    assert operand.shape
    size = operand.shape[-1]
    assert isinstance(size, int)
    return size
