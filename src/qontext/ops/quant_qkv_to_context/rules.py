"""What QuantQKVToContext accepts and what comes out."""

from collections.abc import Mapping
from typing import Any

from ..call import Operand
from ..eight_bits import NONE
from ..qkv_to_context import rules as float_rules

QKV_SCALE, CONTEXT_SCALE = 7, 8
Operands = tuple[Operand | None, ...]


def check(inputs: Operands, attributes: Mapping[str, Any]) -> list[str]:
    """All problems with shapes and combinations of inputs and attributes."""
    qkv, scale = inputs[0], inputs[QKV_SCALE]
    assert qkv is not None
    problems = float_rules.check(float_rules.of_floats(inputs[:QKV_SCALE]), {**attributes, "eight_bits": NONE})
    if qkv.dtype == "int8" and scale is None:
        problems.append("input 'qkv' is int8 and needs 'qkv_scale': one number, or one each for Q, K and V")
    if not 0 <= attributes["dq_probs"] <= 1:
        problems.append(f"attribute 'dq_probs' is {attributes['dq_probs']}, allowed: 0 (by row) to 1; usual is 1/127")
    return problems


def infer(inputs: Operands, attributes: Mapping[str, Any]) -> Operands:
    """context in the layout that belongs to the projection's: int8 with a scale for it, else a float."""
    context = float_rules.infer(inputs[:QKV_SCALE], {**attributes, "eight_bits": NONE})[0]
    assert context is not None
    if inputs[CONTEXT_SCALE] is not None:
        return (Operand("int8", context.shape),)
    return (Operand("float32" if context.dtype == "int8" else context.dtype, context.shape),)
