"""Integers of 2 and 4 bits: written down wherever an operator takes its type from an operand.

Such values are held one to a byte (`qontext.dtypes`), so at run time an operand no longer shows that it is narrow.
Here, where the file still says it, QuantizeLinear gets its `output_dtype` and CastLike becomes Cast; inputs,
weights and results are from then on what they are held in.
"""

import onnx_ir as ir

from ..errors import GraphError

_HELD = {
    ir.DataType.INT4: ir.DataType.INT8,
    ir.DataType.UINT4: ir.DataType.UINT8,
    ir.DataType.INT2: ir.DataType.INT8,
    ir.DataType.UINT2: ir.DataType.UINT8,
}
NARROW = tuple(_HELD)
# Operators that move values of their first operand, and change none.
_MOVERS = frozenset(
    [
        "Compress",
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Pad",
        "Reshape",
        "ReverseSequence",
        "Slice",
        "SpaceToDepth",
        "DepthToSpace",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ]
)
_STANDARD = ("", "ai.onnx")


def write_down_narrow_types(graph: ir.Graph) -> None:
    """Changes the graph (in the order of evaluation) in place.

    Raises GraphError for a QuantizeLinear whose `output_dtype` and zero point are of different types.
    """
    kinds: dict[ir.Value, ir.DataType] = {}
    for value in (*graph.inputs, *graph.initializers.values()):
        kind = value.const_value.dtype if value.const_value is not None else value.dtype
        if kind in NARROW:
            kinds[value] = kind
    for node in graph:
        if node.domain not in _STANDARD:
            continue
        if node.op_type == "QuantizeLinear":
            _quantize(node, kinds)
        elif node.op_type == "CastLike" and len(node.inputs) == 2 and node.inputs[1] in kinds:
            _cast(node, kinds[node.inputs[1]])
        found = _kind_of(node, kinds)
        if found is not None:
            kinds |= dict.fromkeys(node.outputs, found)
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in NARROW:
            array = tensor.numpy().astype(_HELD[tensor.dtype].numpy())
            value.const_value = ir.Tensor(array, name=tensor.name)
    computed = (value for node in graph for value in node.outputs)
    for value in (*graph.inputs, *graph.initializers.values(), *computed):
        if value.dtype in NARROW:
            value.type = ir.TensorType(_HELD[value.dtype])


def _attribute(node: ir.Node, name: str) -> ir.DataType | None:
    attribute = node.attributes.get(name)
    if attribute is None or attribute.type != ir.AttributeType.INT or not attribute.value:
        return None
    try:
        return ir.DataType(attribute.value)
    except ValueError:
        return None  # the check of the operator names it


def _quantize(node: ir.Node, kinds: dict[ir.Value, ir.DataType]) -> None:
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    kind = kinds.get(zero) if zero is not None else None
    asked = _attribute(node, "output_dtype")
    if kind is None:
        return
    if asked not in (None, kind):
        raise GraphError(
            f"node {node.name!r} (QuantizeLinear) has output_dtype {asked.name if asked else asked} and a zero point "
            f"of {kind.name}; both have to be the same"
        )
    node.attributes["output_dtype"] = ir.AttrInt64("output_dtype", kind.value)


def _cast(node: ir.Node, kind: ir.DataType) -> None:
    node.resize_inputs(1)
    node.op_type = "Cast"
    node.attributes["to"] = ir.AttrInt64("to", kind.value)


def _kind_of(node: ir.Node, kinds: dict[ir.Value, ir.DataType]) -> ir.DataType | None:
    """The narrow type of a node's results; None for any other type."""
    if node.op_type == "Cast":
        kind = _attribute(node, "to")
    elif node.op_type == "QuantizeLinear":
        kind = _attribute(node, "output_dtype")
    elif node.op_type == "Constant":
        value = node.attributes.get("value")
        kind = value.as_tensor().dtype if value is not None and value.type == ir.AttributeType.TENSOR else None
    elif node.op_type in _MOVERS and node.inputs and node.inputs[0] is not None:
        kind = kinds.get(node.inputs[0])
    elif node.op_type == "Where" and len(node.inputs) == 3 and node.inputs[1] is not None:
        kind = kinds.get(node.inputs[1])
    else:
        kind = None
    return kind if kind in NARROW else None
