"""The operand 'mask' of both operators: its types, what it means, and the plain mask that kernels see."""

from collections.abc import Mapping
from typing import Any

import torch

from ..call import Operand
from ..declare import Attribute

TYPES = "bool|uint8|int8|int16|int32|int64|float32|float16|bfloat16"

MEANS = Attribute(
    "mask_means",
    str,
    "by_type",
    ("by_type", "attend", "ignore"),
    doc="by_type: a mask of floats is added to the logits, any other says attend where it is not 0; "
    "attend, ignore: that is what a mask of any type says where it is not 0",
)


def doc(rows: str, keys: str) -> str:
    """The sentence about the operand in a declaration, with its names of the query and key axes."""
    return (
        f"[B|1, N|1, {rows}|1, {keys}], [B|1, {rows}|1, {keys}] for all heads, or [B, {keys}] over keys: "
        "what 'mask_means' says, by default attend where it is not 0, and added when it is a float"
    )


def is_boolean(mask: Operand | None, attributes: Mapping[str, Any]) -> bool:
    """There is a mask, and it says which keys a query attends to; False for one that is added to the logits."""
    if mask is None:
        return False
    return attributes["mask_means"] != "by_type" or not mask.type.is_float


def plain(mask: torch.Tensor | None, attributes: Mapping[str, Any]) -> torch.Tensor | None:
    """The mask as `Problem` has it: bool (True = attend) or additive, `[B, Skv]` or with four axes."""
    if mask is None:
        return None
    if mask.dim() == 3:
        mask = mask[:, None]
    means = attributes["mask_means"]
    if means == "ignore":
        return mask.logical_not()
    if mask.dtype == torch.bool or (means == "by_type" and mask.is_floating_point()):
        return mask
    return mask != 0
