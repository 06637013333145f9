"""Places for the nodes of a graph, by a library for layered drawings: ranks from top to bottom, few crossings."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError

BOX_WIDTH, BOX_HEIGHT = 132, 30
_COLUMN, _ROW = 150, 52
_MARGIN = 12

Point = tuple[int, int]


@dataclass(frozen=True)
class Placed:
    """A drawing without ink.

    centres: of the boxes, one a node, in pixels from the top left
    lines:   for every edge (from, to) the points it goes through, from the lower rim of a box to the upper rim
    """

    centres: tuple[Point, ...]
    lines: tuple[tuple[int, int, tuple[Point, ...]], ...]
    width: int
    height: int


def place(count: int, edges: Iterable[tuple[int, int]]) -> Placed:
    """Places the nodes 0 to count - 1 of an acyclic graph; the same graph always gets the same places.

    Raises ArgumentError when the layout library is not installed.
    """
    links = sorted({(a, b) for a, b in edges if a != b})
    linked = sorted({n for edge in links for n in edge})
    renumbered = {n: i for i, n in enumerate(linked)}  # dummies of the library are numbered after our nodes
    spots: dict[int, tuple[float, float]] = {}
    routes: dict[int, list[int]] = defaultdict(list)
    across = 0.0
    for positions, width, height, drawn in _components([(renumbered[a], renumbered[b]) for a, b in links]):
        spots.update({int(n): (across + x, height - y) for n, (x, y) in positions})
        for a, b in drawn or ():
            routes[int(a)].append(int(b))
        across += width + 1
    lone = [n for n in range(count) if n not in renumbered]
    depth = max((y for _, y in spots.values()), default=-1.0)
    pixels = {n: _pixel(*spots[i]) for n, i in renumbered.items()}
    for i, n in enumerate(lone):
        pixels[n] = _pixel(float(i % 4), depth + 1 + i // 4)
    bends = {i: _pixel(*spot) for i, spot in spots.items()}
    lines = tuple(
        _line(linked[a], _route(a, b, routes, len(linked)), bends, linked) for a, b in _ends(links, renumbered)
    )
    right = max((x for x, _ in [*pixels.values(), *bends.values()]), default=0)
    low = max((y for _, y in pixels.values()), default=0)
    return Placed(
        tuple(pixels[n] for n in range(count)),
        lines,
        right + BOX_WIDTH // 2 + _MARGIN,
        low + BOX_HEIGHT // 2 + _MARGIN,
    )


def _components(edges: Sequence[tuple[int, int]]) -> list[Any]:
    """What the library makes of each connected part, the part with the first node first."""
    if not edges:
        return []
    try:
        from fast_sugiyama import from_edges
    except ImportError as error:
        raise ArgumentError(
            "pictures of graphs need the package fast-sugiyama: pip install 'qontext[explain]'"
        ) from error
    found = from_edges(list(edges), vertex_spacing=1, dummy_vertices=True)
    return sorted(found, key=lambda part: min(n for n, _ in part[0]))


def _ends(links: Sequence[tuple[int, int]], renumbered: dict[int, int]) -> list[tuple[int, int]]:
    return [(renumbered[a], renumbered[b]) for a, b in links]


def _route(start: int, end: int, routes: dict[int, list[int]], real: int) -> list[int]:
    """The way from a node to another one that it reads into, through dummies."""
    for first in routes[start]:
        way, here = [start, first], first
        while here >= real:
            here = routes[here][0]
            way.append(here)
        if here == end:
            routes[start].remove(first)
            return way
    return [start, end]


def _line(
    start: int, way: Sequence[int], bends: dict[int, Point], linked: Sequence[int]
) -> tuple[int, int, tuple[Point, ...]]:
    points = [bends[i] for i in way]
    half = BOX_HEIGHT // 2
    points[0] = (points[0][0], points[0][1] + half)
    points[-1] = (points[-1][0], points[-1][1] - half)
    return start, linked[way[-1]], tuple(points)


def _pixel(x: float, y: float) -> Point:
    return round(x * _COLUMN) + BOX_WIDTH // 2 + _MARGIN, round(y * _ROW) + BOX_HEIGHT // 2 + _MARGIN


def path_of(points: Sequence[Point]) -> str:
    """An SVG path through points, with a smooth bend between each two."""
    (x, y), *rest = points
    parts = [f"M{x} {y}"]
    for a, b in rest:
        middle = (y + b) // 2
        parts.append(f"L{a} {b}" if a == x else f"C{x} {middle} {a} {middle} {a} {b}")
        x, y = a, b
    return "".join(parts)
