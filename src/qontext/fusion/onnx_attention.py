"""The ONNX operator Attention (23 to 25) becomes ours."""

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from ..graph.dims import AnyDim, text
from .operands import Operands, resolve, scale_attribute
from .rewriter import Rewriter
from .rule import Conditions, Rule
from .views import quotient, trace

_MODES = ("scaled", "capped", "masked", "probs")
_FLOAT = int(ir.DataType.FLOAT)


@dataclass(frozen=True)
class Found:
    operands: Operands
    mask_axes: tuple[int, ...]
    attributes: dict[str, Any]
    further: list[ir.Value | None]


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.holds(node.domain == "", "this is no standard operator")
    attributes = rewriter.attributes(node)
    precision = attributes.get("softmax_precision", _FLOAT)
    seen.holds(precision == _FLOAT, f"its softmax is asked for in data type {precision}, ours computes in float32")
    scale = attributes.get("scale")
    seen.holds(scale is None or scale > 0, f"its scale is {scale}")
    wanted = [bool(v.name) and (bool(v.uses()) or v.is_graph_output()) for v in node.outputs]
    further = any(wanted[1:])
    operands = _operands(seen, node, rewriter, attributes, further or rewriter.input(node, 4) is not None)
    mask = rewriter.input(node, 3)
    axes = () if mask is None else _mask_axes(seen, node, rewriter, mask)
    mode = attributes.get("qk_matmul_output_mode", 0)
    ours = {
        "scale": scale_attribute(float(scale or 0.0), _head_size(node, rewriter, attributes)),
        "kind": "causal" if attributes.get("is_causal", 0) else "full",
        "softcap": float(attributes.get("softcap", 0.0)),
        "window_left": attributes.get("left_window_size", -1),
        "window_right": attributes.get("right_window_size", -1),
        "scores_mode": _MODES[mode],
    }
    results = [v if want else None for v, want in zip(node.outputs, wanted, strict=True)]
    return Found(operands, axes, ours, results[1:] if further else [])


def _operands(
    seen: Conditions, node: ir.Node, rewriter: Rewriter, attributes: dict[str, Any], as_they_are: bool
) -> Operands:
    """Query, key and value: behind their head split where that can be seen, else as the operator has them."""
    query, key, value = node.inputs[0], node.inputs[1], node.inputs[2]
    assert query is not None
    assert key is not None
    assert value is not None
    result = node.outputs[0]
    rank = seen.found(rewriter.rank(query), f"the shape of {query.name!r} is unknown")
    if rank == 3:
        heads, kv_heads = attributes["q_num_heads"], attributes["kv_num_heads"]
        return Operands("B S (N D)", heads, kv_heads, query, key, value, 1.0, result, ())
    if not as_they_are:
        views = [trace(rewriter, v) for v in (query, key, value)]
        for operands in resolve(rewriter, views[0], views[1], views[2], result, transposed_key=False):
            return operands
    return Operands("B N S D", 0, 0, query, key, value, 1.0, result, ())


def _head_size(node: ir.Node, rewriter: Rewriter, attributes: dict[str, Any]) -> AnyDim:
    """The size of one head of the query."""
    query = node.inputs[0]
    assert query is not None
    shape = rewriter.shape(query)
    if shape is None:
        return None
    return shape[-1] if len(shape) == 4 else quotient(shape[-1], attributes["q_num_heads"])


def _mask_axes(seen: Conditions, node: ir.Node, rewriter: Rewriter, mask: ir.Value) -> tuple[int, ...]:
    """Where axes of size 1 make four axes of the mask; its last axis must reach over all keys."""
    shape = seen.found(rewriter.shape(mask), f"the shape of its mask {mask.name!r} is unknown")
    key = node.inputs[1]
    assert key is not None
    keys = rewriter.shape(key)
    past = rewriter.input(node, 4)
    if keys is not None and past is None:
        length = keys[-2]
        seen.holds(shape[-1] == length, f"its mask has shape {text(shape)}, shorter than the {length} keys")
    return tuple(range(4 - len(shape)))


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    mask = rewriter.input(node, 3)
    if mask is not None:
        mask = rewriter.unsqueeze(node, mask, found.mask_axes)
    operands = found.operands
    past = [rewriter.input(node, i) for i in (4, 5, 6)]
    inputs = [operands.query, operands.key, operands.value, mask, None, *past]
    old = [node, *operands.swallowed]
    operands.put(rewriter, RULE.name, old, inputs, found.attributes, found.further, node)


RULE = Rule(
    name="onnx_attention",
    doc="The ONNX operator Attention (23 to 25) becomes Attention, reading query, key and value as they were before "
    "heads were split off where that can be seen.",
    anchors=frozenset({"Attention"}),
    check=check,
    rewrite=rewrite,
    why="beside attention: the same thing, spelled as one operator",
)
