"""What QuantQKVToContext accepts and what comes out."""

from collections.abc import Mapping
from typing import Any

from ..call import Operand
from ..eight_bits import KINDS, NONE
from ..qkv_to_context import rules as float_rules

QKV_SCALE, CONTEXT_SCALE = 7, 8
Operands = tuple[Operand | None, ...]


def check(inputs: Operands, attributes: Mapping[str, Any]) -> list[str]:
    """All problems with shapes and combinations of inputs and attributes."""
    qkv, scale = inputs[0], inputs[QKV_SCALE]
    assert qkv is not None
    kind = attributes["eight_bits"]
    problems = float_rules.check(float_rules.of_floats(inputs[:QKV_SCALE]), {**attributes, "eight_bits": NONE})
    if qkv.dtype in KINDS and scale is None:
        problems.append(f"input 'qkv' is {qkv.dtype} and needs 'qkv_scale': one number, or one each for Q, K and V")
    if qkv.dtype in KINDS and qkv.dtype != kind:
        problems.append(f"input 'qkv' is {qkv.dtype}, and attribute 'eight_bits' is {kind!r}")
    if kind != "int8" and attributes["dq_probs"]:
        problems.append(f"attribute 'dq_probs' is {attributes['dq_probs']}, a step of bytes, and {kind} has no steps")
    if not 0 <= attributes["dq_probs"] <= 1:
        problems.append(f"attribute 'dq_probs' is {attributes['dq_probs']}, allowed: 0 (by row) to 1; usual is 1/127")
    return problems


def infer(inputs: Operands, attributes: Mapping[str, Any]) -> Operands:
    """context in the layout that belongs to the projection's: in eight bits with a scale for it, else a float."""
    context = float_rules.infer(inputs[:QKV_SCALE], {**attributes, "eight_bits": NONE})[0]
    assert context is not None
    if inputs[CONTEXT_SCALE] is not None:
        return (Operand(attributes["eight_bits"], context.shape),)
    return (Operand("float32" if context.dtype in KINDS else context.dtype, context.shape),)
