"""Embedding look-ups, their sum and the LayerNorm after it become EmbedLayerNorm."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir
import torch

from ..errors import NoFusion
from ..graph.dims import text
from ..ops.embed_layer_norm.op import OP as EMBED_LAYER_NORM
from .evaluate import Trial, sources, trial_sizes
from .rewriter import Rewriter
from .rule import Conditions, Rule

_MOST_ADDENDS = 6
_PICKING = frozenset({"Expand", "Gather", "GatherElements", "Slice", "Reshape", "Unsqueeze", "Squeeze"})


@dataclass(frozen=True)
class Lookup:
    """One addend: rows of a constant `table` [rows, E] at `ids`.

    ids:   the value that says which rows, None when `start` or `row` says it
    start: rows start, start + 1, ... along the sequence
    row:   the same row everywhere
    nodes: what computes it
    """

    table: ir.Value
    ids: ir.Value | None
    start: int | None = None
    row: int | None = None
    nodes: tuple[ir.Node, ...] = ()

    @property
    def rows(self) -> int:
        size = (self.table.shape or [0])[0]
        return size if isinstance(size, int) else 0


@dataclass
class Found:
    word: Lookup
    position: Lookup | None = None
    kind: Lookup | None = None
    total: ir.Value | None = None
    nodes: list[ir.Node] = field(default_factory=list)
    sum_is_read: bool = False


def check(node: ir.Node, rewriter: Rewriter) -> Found:
    seen = Conditions(node)
    seen.candidate(rewriter.is_ours(node, "LayerNorm"), "this is no layer norm of ours")
    total = node.inputs[0]
    assert total is not None
    addends, adds = _addends(rewriter, total)
    is_lookup = any(rewriter.producer(a, "Gather") is not None and _table(rewriter, a) is not None for a in addends)
    seen.holds(is_lookup, "its input is no sum of embedding look-ups")
    seen.holds(rewriter.input(node, 1) is not None, "the layer norm has no weight")
    shape = rewriter.shape(total)
    seen.holds(shape is not None and len(shape) == 3, f"the sum has shape {text(shape)}, expected [B, S, E]")
    for add in adds:
        if add.outputs[0] is not total:
            only = not rewriter.read_elsewhere(add.outputs[0], adds)
            seen.holds(only, "a partial sum of the embeddings is read elsewhere", add)
    lookups = [_lookup(seen, rewriter, addend, total) for addend in addends]
    found = _sort(seen, rewriter, lookups, addends)
    found.total = total
    found.nodes = [*adds, *(n for lookup in lookups for n in lookup.nodes)]
    found.sum_is_read = rewriter.read_elsewhere(total, [node])
    return found


def _addends(rewriter: Rewriter, value: ir.Value) -> tuple[list[ir.Value], list[ir.Node]]:
    """The leaves of a tree of additions and the additions themselves, the last one first."""
    leaves, adds, todo = list[ir.Value](), list[ir.Node](), [value]
    while todo:
        here = todo.pop()
        node = rewriter.producer(here, "Add", "Sum")
        if node is not None and node.domain == "" and len(adds) < _MOST_ADDENDS:
            adds.append(node)
            todo += [v for v in node.inputs if v is not None]
        else:
            leaves.append(here)
    return leaves, adds


def _table(rewriter: Rewriter, value: ir.Value) -> ir.Value | None:
    """The constant [rows, E] that a Gather along axis 0 reads."""
    node = rewriter.producer(value, "Gather")
    if node is None or node.domain != "" or rewriter.attributes(node).get("axis", 0) != 0:
        return None
    table = node.inputs[0]
    return table if table is not None and table.is_initializer() and len(table.shape or ()) == 2 else None


def _lookup(seen: Conditions, rewriter: Rewriter, addend: ir.Value, total: ir.Value) -> Lookup:
    """What one addend looks up; a refusal when it is no look-up."""
    node, table = rewriter.producer(addend), _table(rewriter, addend)
    if node is not None and table is not None:
        ids = node.inputs[1]
        assert ids is not None
        pattern = _known_ids(rewriter, ids)
        if pattern is not None:
            return Lookup(table, None, *pattern, nodes=(node,))
        shape, whole = rewriter.shape(ids), rewriter.shape(total)
        fits = shape is not None and whole is not None and shape in (whole[:2], (1, whole[1]), (whole[1],))
        seen.holds(fits, f"its ids {ids.name!r} have shape {text(shape)}, the sum has {text(whole)}", node)
        return Lookup(table, ids, nodes=(node,))
    rows = _rows(rewriter, addend, total)
    what = "an input of the graph" if node is None else f"{node.op_type} {node.name!r}"
    return seen.found(rows, f"an addend comes from {what}, which is no embedding look-up", node)


def _known_ids(rewriter: Rewriter, ids: ir.Value) -> tuple[int | None, int | None] | None:
    """(start, None) for ids start, start + 1, ... in every row, (None, row) for one id everywhere; None for others."""
    everywhere = _one_value(rewriter, ids)
    if everywhere is not None:
        return None, everywhere
    try:
        leaves, nodes = sources(rewriter, ids)
        if leaves or not (nodes or rewriter.constant(ids) is not None):
            return None
        tensors = [Trial(rewriter, sizes, {}).run(ids) for sizes in trial_sizes(rewriter, ids, nodes)]
    except NoFusion:
        return None
    first = {int(t.flatten()[0]) for t in tensors if t.numel()}
    if len(first) != 1 or any(t.dim() == 0 for t in tensors):
        return None
    value = first.pop()
    if all(bool((t == value).all()) for t in tensors):
        return None, value
    if all(bool((t == torch.arange(value, value + t.shape[-1])).all()) for t in tensors):
        return value, None
    return None


def _one_value(rewriter: Rewriter, ids: ir.Value) -> int | None:
    """The one number that a constant holds out of which ids are picked, whatever is picked."""
    value: ir.Value | None = ids
    for _ in range(_MOST_ADDENDS):
        constant = rewriter.constant(value)
        if constant is not None:
            first = constant.flatten()[:1]
            return int(first) if first.numel() and bool((constant == first).all()) else None
        node = rewriter.producer(value)
        if node is None or node.domain != "" or node.op_type not in _PICKING:
            return None
        value = node.inputs[0]
    return None


def _rows(rewriter: Rewriter, addend: ir.Value, total: ir.Value) -> Lookup | None:
    """A constant, or the first rows of one: rows for the positions, or one row for all."""
    shape, whole = rewriter.shape(addend), rewriter.shape(total)
    if shape is None or whole is None or not 1 <= len(shape) <= 3:
        return None
    spread = (1,) * (3 - len(shape)) + shape
    if spread[0] != 1 or spread[2] != whole[2]:
        return None
    constant = rewriter.constant(addend)
    if constant is not None:
        if spread[1] not in (1, whole[1]):
            return None
        flat = constant.reshape(-1, constant.shape[-1])
        table = rewriter.derived("rows", [addend], f"{addend.name}.rows", lambda: flat)
        return Lookup(table, None, None, 0) if spread[1] == 1 else Lookup(table, None, 0, None)
    return _sliced_rows(rewriter, addend) if spread[1] == whole[1] else None


def _sliced_rows(rewriter: Rewriter, addend: ir.Value) -> Lookup | None:
    """The rows start, start + 1, ... of a constant table, cut out by a Slice along the positions."""
    node, behind = rewriter.producer(addend), list[ir.Node]()
    while node is not None and node.op_type in ("Unsqueeze", "Reshape", "Identity") and node.domain == "":
        behind.append(node)
        node = rewriter.producer(node.inputs[0])
    if node is None or node.domain != "" or node.op_type != "Slice":
        return None
    table, sliced = rewriter.constant(node.inputs[0]), rewriter.shape(node.outputs[0])
    if table is None or sliced is None or node.inputs[0] is None or table.dim() != len(sliced) or table.dim() < 2:
        return None
    rows = table.shape[-2]
    if table.numel() != rows * table.shape[-1] or sliced[-1] != table.shape[-1]:
        return None
    start, steps = rewriter.constant(node.inputs[1]), rewriter.constant(rewriter.input(node, 4))
    axes = rewriter.constant(rewriter.input(node, 3))
    if start is None or start.numel() != 1 or (steps is not None and int(steps) != 1):
        return None
    axis = 0 if axes is None else int(axes) % table.dim()
    if axis != table.dim() - 2 or int(start) < 0:
        return None
    flat = rewriter.derived("rows", [node.inputs[0]], f"{node.inputs[0].name}.rows", lambda: table.reshape(rows, -1))
    return Lookup(flat, None, int(start), None, (node, *behind))


def _sort(seen: Conditions, rewriter: Rewriter, lookups: Sequence[Lookup], addends: Sequence[ir.Value]) -> Found:
    """Which look-up is the word, the position, the token type. The sum does not care; names and sizes tell."""
    left = list(lookups)
    seen.holds(len(left) <= 3, f"{len(left)} look-ups are added, EmbedLayerNorm takes at most three")
    positions = [x for x in left if x.start is not None]
    seen.holds(len(positions) <= 1, "two look-ups count along the positions")
    kinds = [x for x in left if x.row is not None]
    seen.holds(len(kinds) <= 1, "two look-ups take one row everywhere")
    left = [x for x in left if x.ids is not None]
    if not positions and len(left) > 1:
        positions = [x for x in left if _called(x, "position")][:1] or ([] if kinds or len(left) < 3 else left[:0])
        left = [x for x in left if x not in positions]
    if not kinds and len(left) > 1:
        kinds = [x for x in left if _called(x, "type", "segment")][:1]
        left = [x for x in left if x not in kinds]
    left.sort(key=lambda x: -x.rows)
    seen.holds(left, "no look-up depends on the tokens")
    word, *rest = left
    for lookup in rest:  # nothing tells what they are, and nothing depends on it
        if not positions:
            positions = [lookup]
        else:
            kinds = [lookup]
    ids = word.ids
    assert ids is not None
    shape = rewriter.shape(ids)
    total = rewriter.shape(addends[lookups.index(word)])
    seen.holds(total is not None and shape == total[:2], f"the token ids {ids.name!r} have shape {text(shape)}")
    kind = kinds[0] if kinds else None
    if kind is not None and kind.ids is not None:
        found = rewriter.shape(kind.ids)
        seen.holds(found == shape, f"the token types {kind.ids.name!r} have shape {text(found)}, the ids {text(shape)}")
    return Found(word, positions[0] if positions else None, kind)


def _called(lookup: Lookup, *words: str) -> bool:
    names = f"{lookup.table.name} {lookup.ids.name if lookup.ids is not None else ''}".lower()
    return any(word in names for word in words)


def rewrite(node: ir.Node, found: Found, rewriter: Rewriter) -> None:
    position, kind = found.position, found.kind
    weight, bias = node.inputs[1], rewriter.input(node, 2)
    assert weight is not None
    if bias is None:
        table = found.word.table
        bias = rewriter.derived("no bias", [weight, table], f"{weight.name}.no_bias", lambda: _zeros(rewriter, table))
    inputs: list[ir.Value | None] = [found.word.ids, found.word.table, None, None, None, None, weight, bias]
    attributes = {"epsilon": rewriter.attributes(node)["epsilon"]}
    if position is not None:
        inputs[2:4] = [position.ids, position.table]
        attributes["position_offset"] = position.start or 0
    if kind is not None:
        table = kind.table
        if kind.row:
            table = rewriter.derived(f"row {kind.row}", [table], f"{table.name}.row", lambda: _row(rewriter, kind))
        inputs[4:6] = [kind.ids, table]
    results = [node.outputs[0], *([found.total] if found.sum_is_read else [])]
    rewriter.replace(
        RULE.name,
        [node, *found.nodes],
        EMBED_LAYER_NORM,
        inputs,
        attributes,
        results,
        note="with the sum" if found.sum_is_read else "",
        at=_first_reader(rewriter, node, found),
    )


def _first_reader(rewriter: Rewriter, node: ir.Node, found: Found) -> ir.Node:
    """Where the fused node can stand: before everybody who reads the sum."""
    producer = rewriter.producer(found.total)
    return producer if found.sum_is_read and producer is not None else node


def _zeros(rewriter: Rewriter, table: ir.Value) -> torch.Tensor:
    """The bias [E] of a norm that has none."""
    tensor = rewriter.constant(table)
    assert tensor is not None
    return tensor.new_zeros(tensor.shape[-1])


def _row(rewriter: Rewriter, kind: Lookup) -> torch.Tensor:
    table = rewriter.constant(kind.table)
    assert table is not None
    assert kind.row is not None
    return table[kind.row : kind.row + 1]


RULE = Rule(
    name="embed_layer_norm",
    doc="Up to three look-ups (word, position, token type), their sum and the LayerNorm after it become "
    "EmbedLayerNorm; positions may be counted, given or computed, token types given or always the same.",
    anchors=frozenset({"LayerNorm"}),
    check=check,
    rewrite=rewrite,
    why="before skip_layer_norm, which would take the last addition of the embedding for a residual one",
)
