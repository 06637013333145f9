"""Pictures of a graph as SVG and DOT: the same graph gives the same bytes."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from ..errors import ArgumentError
from ..fusion.words import telling_attributes
from ..graph.ledger import origin_of
from ..graph.text import type_text
from ..ops.catalogue import BY_NAME
from .colours import FILL, family_of
from .layout import BOX_HEIGHT, BOX_WIDTH, path_of, place

_MOST = 2_000


@dataclass(frozen=True)
class Shown:
    """One box: its operator (or the name of an input), what it says below, where it comes from, what it reads."""

    label: str
    detail: str
    origin: str
    reads: tuple[int, ...]
    kind: str = "node"  # or "input", "output"


def boxes_of(graph: ir.Graph, only: str = "") -> list[Shown]:
    """The nodes of a graph, its inputs and its outputs as boxes.

    Args:
        only: a module path, or the name of an operator ("attention" for the first attention): just these nodes, those
            that feed them within one step, and no others.
    Raises:
        ArgumentError: nothing of that name, or more boxes than a picture can show.
    """
    nodes = _chosen(list(graph), only)
    if len(nodes) > _MOST:
        raise ArgumentError(
            f"the graph has {len(nodes)} nodes, a picture shows up to {_MOST}; name a part of it, such as a module path"
        )
    index: dict[ir.Value, int] = {}
    boxes: list[Shown] = []

    def outside(value: ir.Value) -> int:
        boxes.append(Shown(str(value.name), type_text(value), "", (), "input"))
        return len(boxes) - 1

    for node in nodes:
        reads = []
        for value in node.inputs:
            if value is None or value.is_initializer() or _constant(value):
                continue
            if value not in index:
                index[value] = outside(value)
            reads.append(index[value])
        boxes.append(Shown(node.op_type, _detail(node), origin_of(node), tuple(dict.fromkeys(reads))))
        index.update(dict.fromkeys(node.outputs, len(boxes) - 1))
    inside = set(nodes)
    for node in nodes:
        for value in node.outputs:
            if value.is_graph_output() or any(use.node not in inside for use in value.uses()):
                boxes.append(Shown(str(value.name), type_text(value), "", (index[value],), "output"))
    return boxes


def boxes_of_rows(rows: Sequence[Mapping[str, Any]], key: str) -> list[Shown]:
    """Rows of a report (nodes by `id`, steps by `index`) as boxes."""
    place_of: dict[Any, int] = {}
    boxes: list[Shown] = []
    for row in rows:
        for read in row["reads"]:
            if isinstance(read, str) and read not in place_of:
                place_of[read] = len(boxes)
                boxes.append(Shown(read, "input", "", (), "input"))
        reads = tuple(place_of[r] for r in row["reads"] if r in place_of)
        place_of[row[key]] = len(boxes)
        boxes.append(Shown(row["op"], row.get("kernel", row.get("type", "")), row["origin"], reads))
    return boxes


def svg(boxes: Sequence[Shown], title: str) -> str:
    """The picture as SVG with a light background; readable without any other file."""
    placed = place(len(boxes), [(r, i) for i, b in enumerate(boxes) for r in b.reads])
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {placed.width} {placed.height}" '
        f'width="{placed.width}" height="{placed.height}" role="img" font-family="system-ui, sans-serif">',
        f"<title>{html.escape(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#77808a"/></marker></defs>',
        f'<rect width="{placed.width}" height="{placed.height}" fill="#ffffff"/>',
        '<g fill="none" stroke="#77808a" stroke-width="1.2">',
    ]
    lines += [f'<path d="{path_of(points)}" marker-end="url(#tip)"/>' for _, _, points in placed.lines]
    lines.append("</g>")
    for box, (x, y) in zip(boxes, placed.centres, strict=True):
        lines += _box(box, x, y)
    return "\n".join([*lines, "</svg>", ""])


def _box(box: Shown, x: int, y: int) -> list[str]:
    left, top = x - BOX_WIDTH // 2, y - BOX_HEIGHT // 2
    plain = box.kind == "node"
    fill = FILL[family_of(box.label)] if plain else "#ffffff"
    corner, dash = (5, "") if plain else (BOX_HEIGHT // 2, ' stroke-dasharray="3 2"')
    hint = " · ".join(t for t in (box.label, box.detail, box.origin) if t)
    return [
        f"<g><title>{html.escape(hint)}</title>"
        f'<rect x="{left}" y="{top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="{corner}" fill="{fill}" '
        f'stroke="#5b6570"{dash}/>',
        _text(x, y - 2, 12, "#15181b", box.label if plain else box.label.rpartition("/")[2], 18),
        _text(x, y + 11, 9, "#444c55", box.detail, 24),
        "</g>",
    ]


def _text(x: int, y: int, size: int, colour: str, text: str, most: int) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="middle" font-size="{size}" fill="{colour}">{_cut(text, most)}</text>'


def dot(boxes: Sequence[Shown], title: str) -> str:
    """The graph in the language of Graphviz."""
    lines = [
        f"digraph {_quoted(title)} {{",
        '  node [shape=box, style="rounded,filled", fontname="sans-serif", fontsize=10];',
        "  edge [arrowsize=0.6];",
    ]
    for i, box in enumerate(boxes):
        fill = FILL[family_of(box.label)] if box.kind == "node" else "#ffffff"
        label = f"{box.label}\n{box.detail}" if box.detail else box.label
        shape = "" if box.kind == "node" else ", shape=ellipse"
        lines.append(f'  n{i} [label={_quoted(label)}, fillcolor="{fill}", tooltip={_quoted(box.origin)}{shape}];')
    lines += [f"  n{r} -> n{i};" for i, box in enumerate(boxes) for r in box.reads]
    return "\n".join([*lines, "}", ""])


def _chosen(nodes: list[ir.Node], only: str) -> list[ir.Node]:
    nodes = [n for n in nodes if n.op_type != "Constant"]
    if not only:
        return nodes
    named = [n for n in nodes if f"{origin_of(n)}.".startswith(f"{only}.") or n.name == only]
    if named:
        return named
    if only == "attention":
        return _attention_block(nodes)
    raise ArgumentError(
        f"no module or node is called {only!r}; there are {', '.join(sorted({origin_of(n) for n in nodes})[:12])}, ..."
    )


def _attention_block(nodes: list[ir.Node]) -> list[ir.Node]:
    """The first attention with the linear layers around it: what shares its module path, or what stands near it."""
    centre = next((n for n in nodes if family_of(n.op_type) == "attention"), None)
    if centre is None:
        raise ArgumentError("the graph has no attention")
    block = origin_of(centre)
    parent = block.rpartition(".")[0]
    for path in (parent, block):
        inside = [n for n in nodes if path and f"{origin_of(n)}.".startswith(f"{path}.")]
        if inside and sum(family_of(n.op_type) == "attention" for n in inside) == 1:
            return inside
    at = nodes.index(centre)
    return nodes[max(0, at - 12) : at + 6]


def _constant(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Constant"


def _detail(node: ir.Node) -> str:
    return telling_attributes(node, BY_NAME) or next((type_text(v) for v in node.outputs if v.name), "")


def _cut(text: str, length: int) -> str:
    return html.escape(text if len(text) <= length else text[: length - 1] + "…")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
