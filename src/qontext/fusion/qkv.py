"""Three projections and their attention become one projection and QKVToContext."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from ..graph.ledger import common_origin
from ..ops.attention_common.layouts import CONTEXT_OF, QKV_LAYOUTS, axes_of, is_packed
from ..ops.linear.op import OP as LINEAR
from ..ops.qkv_to_context.op import OP as QKV_TO_CONTEXT
from .linear_parts import LinearParts, merged, needs_linear
from .rewriter import Rewriter
from .rule import Conditions, Rule
from .views import Atom, Axes, Axis, View, follow, quotient, size_of, trace

_LEFT_ALONE = (
    "past_key", "past_value", "key_lengths", "cu_seqlens_q", "cu_seqlens_kv", "max_seqlen_q", "max_seqlen_kv",
    "prefix_lengths",
)  # fmt: skip
_KEPT = ("scale", "kind", "empty_row", "mask_means", "softcap", "window_left", "window_right")


@dataclass(frozen=True)
class Roles:
    """The axes of one attention operand by their meaning."""

    batch: Axis
    length: Axis
    heads: Axis
    size: Axis


@dataclass(frozen=True)
class Found:
    """layout, heads: of QKVToContext; source: the fused projection, or None with three `linears` to merge.
    result: the value that the context replaces, after the nodes in `swallowed`."""

    layout: str
    heads: int
    source: ir.Value | None
    linears: tuple[LinearParts, ...]
    result: ir.Value
    swallowed: tuple[ir.Node, ...]


def _roles(view: View, layout: str, heads: int) -> Roles | None:
    """The meaning of the axes of an operand in an Attention layout; None when the heads are not whole atoms."""
    named = dict(zip(axes_of(layout), view.axes, strict=True))
    if "N D" not in named:
        return Roles(named["B"], named["S"], named["N"], named["D"])
    both = named["N D"]
    for i in range(len(both) + 1):
        if size_of(both[:i]) == heads:
            return Roles(named["B"], named["S"], both[:i], both[i:])
    if len(both) == 1 and quotient(both[0].size, heads) is not None:
        left = Atom((*both[0].path, 0), heads)
        return Roles(named["B"], named["S"], (left,), (Atom((*both[0].path, 1), quotient(both[0].size, heads)),))
    return None


def _laid_out(roles: Roles, layout: str, pick: Axis) -> Axes:
    """The axes that a fused projection in `layout` must have, in the atoms of one operand."""
    by_name = {"B": roles.batch, "S": roles.length, "N": roles.heads, "D": roles.size, "three": pick, "1": ()}
    return tuple(tuple(a for name in axis.split() for a in by_name[name]) for axis in axes_of(layout))


def _one_source(views: Sequence[View], roles: Sequence[Roles]) -> str | None:
    """The layout in which query, key and value are cut out of one value; None when they are not."""
    picks = [list(view.picks.items()) for view in views]
    if (
        any(len(p) != 1 for p in picks)
        or [p[0][1] for p in picks] != [0, 1, 2]
        or any(p[0][0].size != 3 for p in picks)
    ):
        return None
    for layout in QKV_LAYOUTS:
        if is_packed(layout) or layout.endswith("1 1"):
            continue
        if all(
            _same(v.base.axes, _laid_out(r, layout, (p[0][0],))) for v, r, p in zip(views, roles, picks, strict=True)
        ):
            return layout
    return None


def _same(axes: Axes, wanted: Axes) -> bool:
    """Equal axes, where the base may hold heads and head size as one atom that no view has cut yet."""
    return len(axes) == len(wanted) and all(a == w or _uncut(a, w) for a, w in zip(axes, wanted, strict=True))


def _uncut(axis: Axis, wanted: Axis) -> bool:
    """True when the last atom of `axis` is whole where `wanted` has it in pieces."""
    if not axis or len(axis) >= len(wanted):
        return False
    last = len(axis) - 1
    path = axis[last].path
    return axis[:last] == wanted[:last] and all(atom.path[: len(path)] == path for atom in wanted[last:])


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.holds(rewriter.is_ours(node, "Attention"), "this is no fused attention yet")
    attributes = rewriter.attributes(node)
    op = rewriter.inference.ops["Attention"]
    for name in _LEFT_ALONE:
        seen.holds(
            rewriter.input(node, op.input_index(name)) is None, f"its input {name!r} has no place in QKVToContext"
        )
    extra = [v.name for v in node.outputs[1:] if v.name]
    seen.holds(not extra, f"its further outputs {extra} are wanted")
    layout = attributes["layout"]
    views = [trace(rewriter, _operand(node, i), picks=True) for i in range(3)]
    heads = head_counts(node, rewriter)
    found = [_roles(view, layout, n) for view, n in zip(views, (heads[0], heads[1], heads[1]), strict=True)]
    roles = [r for r in found if r is not None]
    seen.holds(len(roles) == 3, "the heads of its operands cannot be told apart")
    seen.holds(heads[0] == heads[1], f"{heads[0]} query heads share {heads[1]} key and value heads")
    bases = [view.base.value for view in views]
    if bases[0] is bases[1] is bases[2]:
        fused = seen.found(_one_source(views, roles), "query, key and value are cut out of one value in no known order")
        result = _result(seen, node, rewriter, roles[0], layout, fused)
        return Found(fused, heads[0], bases[0], (), *result)
    linears = _three_linears(seen, node, rewriter, views)
    for projected, fused in (("B S (N D)", "B S (three N D)"), ("S B (N D)", "S B (three N D)")):
        if all(_same(v.base.axes, _laid_out(r, projected, ())) for v, r in zip(views, roles, strict=True)):
            result = _result(seen, node, rewriter, roles[0], layout, fused)
            return Found(fused, heads[0], None, tuple(linears), *result)
    raise seen.refusal("the projections are split into heads in an order that QKVToContext has no layout for")


def head_counts(node: ir.Node, rewriter: Rewriter) -> tuple[int, int]:
    """Query heads, and key and value heads, of an Attention; 0 for numbers that only the run knows."""
    attributes = rewriter.attributes(node)
    axes = axes_of(attributes["layout"])
    if "N" not in axes:
        heads = attributes["num_heads"]
        return heads, attributes.get("num_kv_heads") or heads
    shapes = [rewriter.shape(_operand(node, i)) for i in (0, 1)]
    counts = [None if shape is None else shape[axes.index("N")] for shape in shapes]
    query, key = (count if isinstance(count, int) else 0 for count in counts)
    return query, key


def _operand(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _three_linears(seen: Conditions, node: ir.Node, rewriter: Rewriter, views: Sequence[View]) -> list[LinearParts]:
    """The linear layers that compute query, key and value and nothing else."""
    names = ("query", "key", "value")
    linears = [needs_linear(seen, rewriter, v.base.value, n) for v, n in zip(views, names, strict=True)]
    for name, part, view in zip(names, linears, views, strict=True):
        seen.holds(part.activation == "none", f"the {name} projection has the activation {part.activation}", part.node)
        readers = [n for n in rewriter.consumers(part.y) if n is not node and n not in view.nodes]
        seen.holds(
            not readers and not part.y.is_graph_output(),
            f"the {name} is read elsewhere, by {readers[0].op_type if readers else 'the caller'}",
            part.node,
        )
    first = linears[0]
    for name, part in zip(names[1:], linears[1:], strict=True):
        seen.holds(
            part.x is first.x,
            f"query and {name} are projected from different values, {first.x.name!r} and {part.x.name!r} "
            "(cross attention)",
        )
        shapes = [list(p.weight.shape or ()) for p in (first, part)]
        seen.holds(
            shapes[0] == shapes[1], f"the projections of query and {name} have shapes {shapes[0]} and {shapes[1]}"
        )
        types = [p.weight.dtype for p in (first, part)]
        seen.holds(types[0] == types[1], f"the projections of query and {name} have types {types[0]} and {types[1]}")
    return linears


def _result(
    seen: Conditions, node: ir.Node, rewriter: Rewriter, query: Roles, layout: str, fused: str
) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """The value that holds the context as QKVToContext gives it, and the views that lead there."""
    context = CONTEXT_OF[fused]
    here, wanted = _laid_out(query, layout, ()), _laid_out(query, context, ())
    way = follow(rewriter, node.outputs[0], here, wanted)
    found = way if way is not None and way.reshape is None else None
    result = seen.found(found, f"its context is read as [{layout}], QKVToContext gives [{context}]")
    return result.value, result.nodes


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    attributes = rewriter.attributes(node)
    source = found.source
    projection = None
    if source is None:
        nodes = [p.node for p in found.linears]
        name = _merged_name(found.linears, common_origin(nodes))
        inputs = [found.linears[0].x, *merged(rewriter, list(found.linears), name)]
        projection = rewriter.insert(node, LINEAR, inputs, {}, origin=nodes)
        source = projection.outputs[0]
    kept: dict[str, Any] = {name: attributes[name] for name in _KEPT if name in attributes}
    views = [n for i in range(3) for n in trace(rewriter, _operand(node, i), picks=True).nodes]
    rewriter.replace(
        RULE.name,
        [node, *found.swallowed, *views],
        QKV_TO_CONTEXT,
        [source, None, rewriter.input(node, 3), rewriter.input(node, 4)],
        {"num_heads": found.heads, "layout": found.layout, **kept},
        [found.result],
        at=node,
    )
    if projection is not None:
        rewriter.absorb(RULE.name, [p.node for p in found.linears], projection, "query, key and value side by side")


def _merged_name(linears: Sequence[LinearParts], origin: str) -> str:
    """The module path that the weights share, with "qkv" in place of "query", "key" and "value"."""
    parts = [(p.weight.name or "").split(".") for p in linears]
    shared = [names[0] for names in zip(*parts, strict=False) if len(set(names)) == 1]
    return ".".join([*(shared[:-1] if shared[-1:] == ["weight"] else shared or [origin or "attention"]), "qkv"])


RULE = Rule(
    name="qkv",
    doc="Three linear layers of one input and the Attention that reads them become one Linear and QKVToContext; "
    "so does an Attention whose query, key and value are cut out of one projection.",
    anchors=frozenset({"Attention"}),
    check=check,
    rewrite=rewrite,
    why="needs Attention and Linear in normal form, masks already reduced",
)
