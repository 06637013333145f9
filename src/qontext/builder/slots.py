"""Positions in the table of values, and constants where their readers want them."""

import onnx_ir as ir
import torch

from ..ops.call import Device, Operand
from ..ops.infer import Inference


class Slots:
    """The table of a program: one slot a value.

    On a GPU a constant that is read on the host (a shape, a list of axes) has a slot of its own and stays on the CPU;
    every other constant is moved to the device, once for each piece of memory.

    Attributes:
        operands: what is known of each slot.
        constants: tensors by slot.
    """

    def __init__(self, inference: Inference, device: Device):
        self.operands: list[Operand | None] = []
        self.constants: dict[int, torch.Tensor] = {}
        self._inference = inference
        self._place = device.torch
        self._slots: dict[tuple[ir.Value, bool], int] = {}
        self._moved: dict[tuple[object, ...], torch.Tensor] = {}

    def of(self, value: ir.Value | None, host: bool = False) -> int:
        """The slot of a value, -1 for an absent one; `host` for a reader that needs its elements on the CPU."""
        if value is None or value.name == "":
            return -1
        found = self._slots.get((value, False))
        if found is not None and found not in self.constants:
            return found
        key = (value, host and self._place.type != "cpu")
        if key not in self._slots:
            operand = self._inference.operand(value)
            if operand is not None and operand.constant is not None:
                tensor = operand.constant if key[1] else self._at_home(operand.constant)
                operand = Operand(operand.dtype, operand.shape, tensor, operand.layout)
                self.constants[len(self.operands)] = tensor
            else:
                key = (value, False)
            self._slots[key] = len(self.operands)
            self.operands.append(operand)
        return self._slots[key]

    def _at_home(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device == self._place:
            return tensor
        memory = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if memory not in self._moved or tensor.numel() == 0:
            self._moved[memory] = tensor.to(self._place)
        return self._moved[memory]
