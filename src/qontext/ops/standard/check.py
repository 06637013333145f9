"""Can a node be run as it stands? Asked once, when a graph is imported, so that nothing is ignored at run time."""

from collections.abc import Iterable

import onnx

from .catalogue import lookup


def problem(op_type: str, opset: int, attributes: Iterable[str] = ()) -> str | None:
    """None when the operator of that name, at that opset and with attributes of those names, can be run; else one
    sentence. Attribute values and operands are judged by the operator itself."""
    op = lookup(op_type)
    if op is None:
        return f"{op_type} is no standard operator that qontext runs"
    if opset < op.since:
        return f"{op_type} is used at opset {opset}; allowed is opset {op.since} or later; convert the model"
    if not onnx.defs.has(op_type, opset):
        return None
    known = onnx.defs.get_schema(op_type, opset).attributes
    unknown = sorted(set(attributes) - known.keys())
    if unknown:
        return (
            f"{op_type} has the unknown attributes {', '.join(unknown)}; allowed at opset {opset} are "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    return None
