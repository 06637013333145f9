"""The pass that lets operators write what the next product reads: eight bits, in the pass over their results that they
make anyway. What no operator in front writes, a QuantLinear turns into eight bits itself, and then sees whole rows too.
"""

from collections.abc import Sequence

import onnx_ir as ir
import torch

from ..graph.attributes import attributes_of, values_of
from ..graph.tensors import constant_of
from ..ops.declare import DOMAIN
from ..ops.eight_bits import NONE
from ..ops.quant_qkv_to_context.rules import CONTEXT_SCALE, QKV_SCALE
from .held import add_weight
from .recipe import BY_ROW, IMPORTED, QuantLayer

_BY_NORM = "found for each token by the norm in front"
# Places of the operands of QuantLinear, and of those of SkipLayerNorm.
_BIAS, _RESIDUAL, _X_SCALE, _X_ZERO, _X_FACTOR, _ROW_SCALE, _ROW_ZERO, _Y_SCALE, _Y_ZERO, _Y_FACTOR = range(3, 13)
_NORM_FACTOR, _NORM_RESULTS = 7, 5
# Operators that write static scales alone, with the places of scale, zero and factor.
_STATIC: dict[str, tuple[int, ...]] = {
    "QuantLinear": (_Y_SCALE, _Y_ZERO, _Y_FACTOR),
    "QKVToContext": (7, 8, 9),
    "QuantQKVToContext": (CONTEXT_SCALE,),  # of its own kind, around 0
}


def hold_results(graph: ir.Graph, layers: Sequence[QuantLayer]) -> int:
    """Gives eight-bit layers an x in eight bits wherever the operator in front can write one.

    A norm finds the scales of its rows. Linear layers and attention, whose programs never see a whole row, write static
    scales alone, and only where nobody but eight-bit layers of that scale reads it; what attention in eight bits reads
    is written by its projection, where it gives such a context itself. Scales of rows are the more exact
    ones, so layers that can have them do not keep static ones, unless the model brought them along. Returns how many
    layers read eight bits; where scales come from is noted in `layers`.
    """
    by_name = {layer.name: layer for layer in layers}
    done = 0
    for node in [n for n in graph if _is_ours(n, "QuantLinear")]:
        x = node.inputs[0]
        producer, layer = None if x is None else x.producer(), by_name[str(node.name)]
        if x is None or _holds(x):
            done += x is not None
            continue
        if producer is None:
            held = False
        elif _is_ours(producer, "SkipLayerNorm") and x is producer.outputs[0]:
            held = _behind_a_norm(producer, node, layer)
        else:
            held = any(_is_ours(producer, name) for name in _STATIC) and _with_a_static_scale(producer, x)
        if held:
            _give_a_type(graph, node)
            done += 1
        elif layer.scale != IMPORTED:
            layer.scale = BY_ROW
            _put(node, _X_SCALE, None)
            _put(node, _X_ZERO, None)
    for node in [n for n in graph if _is_ours(n, "QuantQKVToContext")]:
        if _by_the_projection(node):
            by_name[str(node.name)].scale += ", written by the projection"
    return done


def _by_the_projection(node: ir.Node) -> bool:
    """Lets the projection write what an attention reads in eight bits; False where it cannot, or where it would change
    the type of the context."""
    x, scale = node.inputs[0], _operand(node, QKV_SCALE)
    producer = None if x is None else x.producer()
    if x is None or producer is None or not _is_ours(producer, "QuantLinear"):
        return False
    one = None if scale is None else constant_of(scale)
    if one is None or one.dim() or _operand(node, CONTEXT_SCALE) is None or _operand(producer, _Y_SCALE) is not None:
        return False
    kind, onnx_type = _kind(producer)
    alone = len(x.uses()) == 1 and not x.is_graph_output()
    if not alone or kind == "int8" or values_of(node)["eight_bits"] != kind:
        return False
    _put(producer, _Y_SCALE, scale)
    x.dtype = onnx_type
    return True


def _is_ours(node: ir.Node, name: str) -> bool:
    return node.op_type == name and node.domain == DOMAIN


def _operand(node: ir.Node, place: int) -> ir.Value | None:
    return node.inputs[place] if place < len(node.inputs) else None


def _kind(node: ir.Node) -> tuple[str, ir.DataType]:
    """What a QuantLinear multiplies, by our name and by ONNX's."""
    weight = constant_of(node.inputs[1])
    assert weight is not None
    integers = weight.dtype == torch.int8
    return ("int8", ir.DataType.INT8) if integers else ("float8_e4m3", ir.DataType.FLOAT8E4M3FN)


def _holds(value: ir.Value) -> bool:
    return value.dtype in (ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN)


def _put(node: ir.Node, place: int, value: ir.Value | None) -> None:
    if place >= len(node.inputs):
        if value is None:
            return
        node.resize_inputs(place + 1)
    node.replace_input_with(place, value)


def _behind_a_norm(norm: ir.Node, node: ir.Node, layer: QuantLayer) -> bool:
    """Lets a norm write y8 with scales of its rows; False when it writes another already, or when the model brought
    its own scale along."""
    if layer.scale == IMPORTED:
        return False
    kind, onnx_type = _kind(node)
    factor = _operand(node, _X_FACTOR)
    attributes = values_of(norm)
    if attributes.get("eight_bits", NONE) == NONE:
        _put(norm, _NORM_FACTOR, factor)
        for attribute in attributes_of({"eight_bits": kind}):
            norm.attributes[attribute.name] = attribute
        before = len(norm.outputs)
        norm.resize_outputs(_NORM_RESULTS)
        y, shape = norm.outputs[0], norm.outputs[0].shape
        for output in norm.outputs[before:]:
            output.name = ""
        names = {2: "y8", 3: "row_scale"} | ({4: "row_zero"} if kind == "int8" else {})
        for place, name in names.items():
            output = norm.outputs[place]
            output.name = f"{y.name}/{name}"
            output.dtype = onnx_type if place == 2 else ir.DataType.FLOAT
            output.shape = shape if place == 2 or shape is None else ir.Shape(shape[:-1])
    elif attributes["eight_bits"] != kind or not _same(_operand(norm, _NORM_FACTOR), factor):
        return False
    node.replace_input_with(0, norm.outputs[2])
    for place in (_X_SCALE, _X_ZERO, _X_FACTOR):
        _put(node, place, None)
    _put(node, _ROW_SCALE, norm.outputs[3])
    if kind == "int8":
        _put(node, _ROW_ZERO, norm.outputs[4])
    layer.scale = _BY_NORM
    return True


def _with_a_static_scale(producer: ir.Node, y: ir.Value) -> bool:
    """Lets a layer or an attention write its result in eight bits, when all that read it want the same."""
    readers = [(reader, place) for reader, place in y.uses()]
    first = readers[0][0]
    if not _is_ours(first, "QuantLinear") or y is not producer.outputs[0]:
        return False
    wanted = [_operand(first, p) for p in (_X_SCALE, _X_ZERO, _X_FACTOR)]
    kind, onnx_type = _kind(first)
    if producer.op_type == "QuantLinear" and _kind(producer)[0] != kind:
        return False
    if producer.op_type == "QuantQKVToContext" and (kind == "int8" or values_of(producer)["eight_bits"] != kind):
        return False
    for reader, place in readers:
        if place != 0 or not _is_ours(reader, "QuantLinear") or _kind(reader)[0] != kind:
            return False
        mine = [_operand(reader, p) for p in (_X_SCALE, _X_ZERO, _X_FACTOR)]
        if not all(map(_same, mine, wanted)):
            return False
    if wanted[0] is None or y.is_graph_output():
        return False
    places = _STATIC[producer.op_type]
    if any(value is not None for value in wanted[len(places) :]):
        return False
    for place, value in zip(places, wanted, strict=False):
        _put(producer, place, value)
    if producer.op_type == "QKVToContext":
        for attribute in attributes_of({"eight_bits": kind}):
            producer.attributes[attribute.name] = attribute
    y.dtype = onnx_type
    for reader, _ in readers:
        _put(reader, _X_FACTOR, None)
    return True


def _same(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Both absent, the same value, or equal constants."""
    if one is None or other is None or one is other:
        return one is other
    first, second = constant_of(one), constant_of(other)
    return first is not None and second is not None and torch.equal(first, second)


def _give_a_type(graph: ir.Graph, node: ir.Node) -> None:
    """Zeros for a bias where neither bias nor residual says the type of y."""
    if _operand(node, _BIAS) is None and _operand(node, _RESIDUAL) is None and _operand(node, _Y_SCALE) is None:
        weight = constant_of(node.inputs[1])
        assert weight is not None
        _put(node, _BIAS, add_weight(graph, f"{node.name}/no_bias", torch.zeros(weight.shape[0])))
