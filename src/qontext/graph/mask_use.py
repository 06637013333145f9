"""Whether a graph uses a value as a mask of zeros and ones, or as numbers like any others."""

import onnx_ir as ir

from .attributes import values_of
from .tensors import constant_of

_LARGE = 10.0  # whoever scales by less weighs numbers; whether it is enough for a mask is for the fusion to say
_PASSES = frozenset(
    {
        "Cast",
        "Identity",
        "Unsqueeze",
        "Squeeze",
        "Reshape",
        "Expand",
        "Slice",
        "Transpose",
        "Flatten",
        "Tile",
        "Gather",
        "Neg",
    }
)
_COMPARES = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor"})
_MOST = 400


def used_as_mask(value: ir.Value) -> bool:
    """True when some operator compares the value, casts it to boolean, takes it for a condition or the mask of a fused
    attention, or subtracts it from one and scales the difference by a large number."""
    todo, met = [(value, False)], set[tuple[ir.Value, bool]]()
    while todo and len(met) < _MOST:
        here = todo.pop()
        if here in met:
            continue
        met.add(here)
        current, complement = here
        for node, index in current.uses():
            if node.domain != "":
                if index > 0 and current.dtype is not None and _is_attention(node):
                    return True
                continue
            if node.op_type in _COMPARES or (node.op_type == "Where" and index == 0):
                return True
            if node.op_type == "Cast" and values_of(node).get("to") == int(ir.DataType.BOOL):
                return True
            if node.op_type in _PASSES and index == 0:
                todo.append((node.outputs[0], complement))
            elif node.op_type in ("Sub", "Add") and abs(_number(node, 1 - index)) == 1.0:
                todo.append((node.outputs[0], True))
            elif node.op_type == "Mul":
                factor = node.inputs[1 - index]
                if complement and abs(_number(node, 1 - index)) >= _LARGE:
                    return True
                if factor is not None and factor.producer() is not None:  # both have to allow
                    todo.append((node.outputs[0], complement))
    return False


def _is_attention(node: ir.Node) -> bool:
    return node.op_type in ("Attention", "QKVToContext", "EmbedLayerNorm", "PackIndex")


def _number(node: ir.Node, index: int) -> float:
    """The constant of one element at an input; 0 for anything else."""
    tensor = constant_of(node.inputs[index]) if index < len(node.inputs) else None
    return float(tensor.flatten()[0]) if tensor is not None and tensor.numel() == 1 else 0.0
