"""Weights between torch and `onnx_ir`, sharing memory wherever both can hold the type."""

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor

from ..dtypes import from_onnx
from ..errors import GraphError


def to_torch(tensor: ir.TensorProtocol) -> torch.Tensor:
    """The torch tensor of an ONNX constant, a view of the same memory where possible.

    Raises GraphError for a data type that qontext does not hold (strings, complex numbers).
    """
    if isinstance(tensor, TorchTensor):
        raw = tensor.raw
        assert isinstance(raw, torch.Tensor)
        return raw
    try:
        kind = from_onnx(tensor.dtype)
    except KeyError:
        raise GraphError(
            f"constant {tensor.name!r} has data type {tensor.dtype.name}, which qontext cannot hold"
        ) from None
    array = np.asarray(tensor.numpy())
    if kind.name in ("bfloat16", "float8_e4m3", "float8_e5m2"):
        carrier = np.int16 if kind.bits == 16 else np.uint8
        return torch.from_numpy(np.array(array.view(carrier))).view(kind.torch)
    if kind.bits < 8:
        return torch.from_numpy(np.array(array.astype(np.int8 if kind.torch == torch.int8 else np.uint8)))
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = np.array(array)  # torch warns about memory that it must not write
    return torch.from_numpy(array)


def to_onnx(tensor: torch.Tensor, name: str | None = None) -> ir.TensorProtocol:
    """The ONNX constant that wraps a torch tensor (no copy when it is contiguous)."""
    return TorchTensor(tensor.detach().contiguous(), name=name)


def constant_of(value: ir.Value | None) -> torch.Tensor | None:
    """The tensor of an initializer or of a Constant node's output; None when the value is computed at run time."""
    if value is None:
        return None
    if value.const_value is not None and (value.is_initializer() or value.producer() is not None):
        return _cached(value, value.const_value)
    producer = value.producer()
    if producer is not None and producer.op_type == "Constant" and producer.domain == "":
        return _constant_node(value, producer)
    return None


def _cached(value: ir.Value, tensor: ir.TensorProtocol) -> torch.Tensor:
    held = value.meta.get("torch")
    if held is None or held[0] is not tensor:
        held = (tensor, to_torch(tensor))
        value.meta["torch"] = held
    found = held[1]
    assert isinstance(found, torch.Tensor)
    return found


def _constant_node(value: ir.Value, node: ir.Node) -> torch.Tensor | None:
    if "torch" in value.meta:
        held = value.meta["torch"][1]
        assert isinstance(held, torch.Tensor)
        return held
    name, attribute = next(iter(node.attributes.items()))
    if name == "value":
        tensor = to_torch(attribute.as_tensor())
    elif name in ("value_float", "value_floats"):
        tensor = torch.tensor(attribute.value, dtype=torch.float32)
    elif name in ("value_int", "value_ints"):
        tensor = torch.tensor(attribute.value, dtype=torch.int64)
    else:
        return None
    value.meta["torch"] = (None, tensor)
    return tensor
