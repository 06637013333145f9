"""What follows the product of a linear layer where the library did not fuse it: bias and activation in one pass."""

from collections.abc import Callable
from typing import Any

import torch

from ... import native
from ...native.bound import bind_activation
from ..call import Call
from ..native_kernel import dtype_of, even_or_none

# (y, bias or None): adds the bias to y and activates it, in place.
Finish = Callable[[torch.Tensor, torch.Tensor | None], Any]

# How the kernel library names activations.
NATIVE_KINDS = {"relu": "relu", "gelu_erf": "gelu", "gelu_tanh": "gelu_tanh", "silu": "silu"}
_TORCH: dict[str, Callable[[torch.Tensor], Any]] = {
    "relu": torch.relu_,
    "gelu_erf": torch.ops.aten.gelu_.default,
    "gelu_tanh": lambda y: torch.ops.aten.gelu_.default(y, approximate="tanh"),
    "silu": torch.ops.aten.silu_.default,
}


def activation_of(call: Call) -> Finish | None:
    """The pass for the call's activation; None when it has none."""
    name = call.attributes["activation"]
    if name == "none":
        return None
    if native.available():
        weight = call.inputs[1]
        assert weight is not None
        assert weight.shape is not None
        if isinstance(weight.shape[0], int) and weight.shape[0] > 0:
            activate_rows = bind_activation(weight.shape[0], dtype_of(call), NATIVE_KINDS[name])
            return lambda y, bias: activate_rows(y, even_or_none(bias), y)
    activate = _TORCH[name]

    def in_two_passes(y: torch.Tensor, bias: torch.Tensor | None) -> None:
        activate(y if bias is None else y.add_(bias))

    return in_two_passes
