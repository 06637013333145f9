"""Reading operands: which are there, on which device they meet, and the values of those that are shapes or axes."""

from collections.abc import Sequence

import torch

from ...errors import GraphError, ShapeError, UnsupportedOperatorError
from .attributes import integers
from .declare import Attributes, Context, Inputs


def optional(inputs: Inputs, index: int, device: torch.device | None = None) -> torch.Tensor | None:
    """The input of that position, moved to `device` when one is given; None when it is absent."""
    value = inputs[index] if index < len(inputs) else None
    return value if value is None or device is None or value.device == device else value.to(device)


def needed(op: str, inputs: Inputs, index: int, device: torch.device | None = None) -> torch.Tensor:
    """The input of that position, moved to `device` when one is given. Raises GraphError when it is absent."""
    value = optional(inputs, index, device)
    if value is None:
        raise GraphError(
            f"{op}: input {index} is missing; found are inputs "
            f"{[i for i, x in enumerate(inputs) if x is not None]}; the operator cannot run without it"
        )
    return value


def all_needed(op: str, inputs: Inputs) -> list[torch.Tensor]:
    """All inputs of a variadic operator, at least one. Raises GraphError when one is absent."""
    return [needed(op, inputs, i) for i in range(max(1, len(inputs)))]


def meeting_device(tensors: Sequence[torch.Tensor | None]) -> torch.device:
    """Where tensors meet: `meta` when one is there, else the first device that is not the CPU, else the CPU."""
    found = torch.device("cpu")
    for tensor in tensors:
        if tensor is None or tensor.device == found or tensor.device.type == "cpu":
            continue
        if tensor.is_meta:
            return tensor.device
        if found.type == "cpu":
            found = tensor.device
    return found


def together(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors on the device where they meet."""
    device = meeting_device(tensors)
    return tuple(t if t.device == device else t.to(device) for t in tensors)


def host_list(op: str, what: str, value: torch.Tensor) -> list[int]:
    """The integers of a shape operand. Raises NotImplementedError when only its shape is known."""
    if value.is_meta:
        raise NotImplementedError(f"{op}: the values of its {what} are not known while shapes are inferred")
    return [int(v) for v in value.reshape(-1).tolist()]


def host_int(op: str, what: str, value: torch.Tensor) -> int:
    """The one integer of a shape operand (a scalar or a tensor of one element)."""
    values = host_list(op, what, value)
    if len(values) != 1:
        raise ShapeError(f"{op}: its {what} holds {len(values)} values; allowed is exactly one")
    return values[0]


def axis_of(op: str, axis: int, rank: int) -> int:
    """`axis` counted from the front. Raises ShapeError when the tensor has no such axis."""
    if not -rank <= axis < rank:
        raise ShapeError(f"{op}: axis is {axis}; allowed is {-rank} to {rank - 1} for a tensor of rank {rank}")
    return axis + rank if axis < 0 else axis


def axes_operand(
    op: str, inputs: Inputs, attributes: Attributes, context: Context, index: int, input_since: int
) -> list[int] | None:
    """Axes that were an attribute before opset `input_since` and are input `index` from then on; None when absent."""
    attribute = integers(op, attributes, "axes")
    operand = optional(inputs, index)
    if context.opset >= input_since:
        if attribute is not None:
            raise UnsupportedOperatorError(
                f"{op}: attribute 'axes' is {attribute} at opset {context.opset}; allowed is input {index} "
                f"from opset {input_since} on; correct the model or export it again"
            )
        return None if operand is None else host_list(op, "axes", operand)
    if operand is not None:
        raise UnsupportedOperatorError(
            f"{op}: input {index} (axes) is present at opset {context.opset}; allowed is the attribute 'axes' "
            f"before opset {input_since}; correct the model or export it again"
        )
    return attribute
