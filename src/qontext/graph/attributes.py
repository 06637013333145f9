"""Node attributes as plain Python values, and back."""

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
import torch

from .tensors import to_onnx, to_torch


def values_of(node: ir.Node) -> dict[str, Any]:
    """The attributes of a node: int, float, str, lists of these, torch tensors, sub-graphs as they are."""
    return {name: _plain(attribute) for name, attribute in node.attributes.items()}


def _plain(attribute: ir.Attr) -> Any:
    value = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        return to_torch(attribute.as_tensor())
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, tuple):
        return list(value)
    return value


def attributes_of(values: Mapping[str, Any]) -> list[ir.Attr]:
    """ONNX attributes of plain values; None entries are left out, booleans become 0 and 1."""
    result = []
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool):
            value = int(value)
        if isinstance(value, torch.Tensor):
            value = to_onnx(value)
        if isinstance(value, (list, tuple)) and not value:
            result.append(ir.AttrInt64s(name, []))
            continue
        result.append(ir.convenience.convert_attribute(name, value))
    return result
