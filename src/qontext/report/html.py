"""The report as one HTML file: data, style and script inside, nothing from a network."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ArgumentError
from . import numbers
from .colours import FAMILIES, OTHER, family_of
from .layout import Placed, place
from .plots import memory_plot, roofline, time_bar

_FATES = ("fused", "step", "folded", "removed")
# Columns of steps; `data.js` names them in the same order.
_STEP_WORDS = ("op", "kernel", "origin", "dtype", "kept")
_STEP_NUMBERS = ("bytes", "flops", "us", "share_of_ceiling", "layer")
_STEP_LISTS = ("reads", "sources")
_STEP_SOME = ("gives", "refused", "timings_us")
_SCRIPTS = ("data.js", "graph.js", "inspector.js", "table.js", "main.js")

Row = Mapping[str, Any]


def page(data: Row) -> str:
    """The page of an explanation. Raises ArgumentError when the extra `explain` is missing."""
    return _template("report.html.j2").render(
        d=data,
        payload=_json(payload(data)),
        scripts=_SCRIPTS,
        fusions=fusion_groups(data["fusions"]),
        families=[*(name for name, _ in FAMILIES), OTHER],
        time_bar=time_bar(data["steps"]) if "measured" in data else "",
        roofline=roofline(data) if "measured" in data else "",
        memory_plot=memory_plot(data),
        layer_types=layer_types(data),
    )


def failure_page(what: Row) -> str:
    """The page about a model that cannot be imported or built."""
    return _template("failure.html.j2").render(d=what)


def _template(name: str) -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise ArgumentError("HTML reports need the package jinja2: pip install 'qontext[explain]'") from error
    home = jinja2.Environment(
        loader=jinja2.PackageLoader("qontext.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    home.filters |= {
        "count": numbers.count,
        "size": numbers.size,
        "span": numbers.span,
        "share": numbers.share,
        "rate": numbers.rate,
        "family": family_of,
    }
    return home.get_template(name)


def _json(value: Any) -> str:
    """JSON that can stand inside a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def payload(data: Row) -> dict[str, Any]:
    """What the script of the page works on: columns of nodes and steps, layers, and pictures by run of layers."""
    nodes, steps = data["nodes"], data["steps"]
    words: dict[str, int] = {}

    def word(text: str) -> int:
        return words.setdefault(text, len(words))

    columns = {
        "op": [word(n["op"]) for n in nodes],
        "name": ["" if n["name"] == n["origin"] else n["name"] for n in nodes],
        "origin": [word(n["origin"]) for n in nodes],
        "type": [word(n["type"]) for n in nodes],
        "reads": [n["reads"] for n in nodes],
        "fate": [_FATES.index(n["fate"]) for n in nodes],
        "step": [-1 if n["step"] is None else n["step"] for n in nodes],
        "why": [word(n["why"]) for n in nodes],
        "layer": [n["layer"] for n in nodes],
    }
    rows = {
        "words": [[word(s[k]) for s in steps] for k in _STEP_WORDS],
        "family": [word(family_of(s["op"])) for s in steps],
        "shape": [word(" ".join(s["shapes"])) for s in steps],
        "numbers": [[_short(s.get(k)) for s in steps] for k in _STEP_NUMBERS],
        "lists": [[s[k] for s in steps] for k in _STEP_LISTS],
        "some": {k: {s["index"]: s[k] for s in steps if s[k]} for k in _STEP_SOME},
    }
    return {
        "fates": _FATES,
        "nodes": columns,
        "steps": rows,
        "layers": data["layers"],
        "pictures": _pictures(data),
        "words": list(words),
        "families": {op: family_of(op) for op in {n["op"] for n in nodes}},
        "run_us": data["measured"]["run_us"] if "measured" in data else None,
    }


def _short(value: float | None) -> float | None:
    """Five digits are enough to show."""
    return None if value is None else float(f"{value:.5g}")


def _pictures(data: Row) -> list[dict[str, Any]]:
    """For every run of equal layers, the imported nodes and the steps of one of them, placed."""
    nodes = {n["id"]: n for n in data["nodes"]}
    drawn: list[dict[str, Any]] = []
    for layer in data["layers"]:
        if layer["run"] < len(drawn):
            continue
        drawn.append(
            {
                "before": _picture([nodes[i] for i in layer["nodes"]], "id"),
                "after": _picture([data["steps"][i] for i in layer["steps"]], "index"),
            }
        )
    return drawn


def _picture(rows: Sequence[Row], key: str) -> dict[str, Any]:
    """Places of the rows and, after them, of what they read from outside, in the order in which it is first read.

    A line is [from, to] and the points between.
    """
    at: dict[Any, int] = {row[key]: i for i, row in enumerate(rows)}
    edges = []
    for i, row in enumerate(rows):
        for read in row["reads"]:
            edges.append((at.setdefault(read, len(at)), i))
    placed: Placed = place(len(at), edges)
    return {
        "w": placed.width,
        "h": placed.height,
        "xy": [c for centre in placed.centres for c in centre],
        "lines": [[a, b, *(c for point in points[1:-1] for c in point)] for a, b, points in placed.lines],
    }


def fusion_groups(fusions: Sequence[Row]) -> list[dict[str, Any]]:
    """Applications that did the same in different places as one row."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for f in fusions:
        key = (f["rule"], f["after"], tuple(f["before"]), f["note"])
        row = groups.setdefault(
            key,
            {
                "rule": f["rule"],
                "after": f["after"],
                "before": f["before"],
                "note": f["note"],
                "count": 0,
                "places": [],
                "ids": [],
            },
        )
        row["count"] += 1
        row["places"].append(f["origin"])
        row["ids"] += [s["id"] for s in f["sources"]]
    return list(groups.values())


def layer_types(data: Row) -> list[dict[str, Any]]:
    """Types of results and weights by layer, neighbours that are equal as one row."""
    rows: list[dict[str, Any]] = []
    for layer in data["layers"]:
        steps = [data["steps"][i] for i in layer["steps"]]
        if not steps:
            continue
        row = {
            "results": _counted([s["dtype"] for s in steps]),
            "weights": _counted([s["weight_dtype"] for s in steps if s["weight_dtype"]]),
            "kept": sorted({f"{s['op']}: {s['kept']}" for s in steps if s["kept"]}),
            "error": max((s["error"] for s in steps if s.get("error") is not None), default=None),
        }
        if rows and {k: rows[-1][k] for k in row} == row and rows[-1]["path"] == layer["path"]:
            rows[-1]["last"] = layer["title"]
        else:
            rows.append({"title": layer["title"], "path": layer["path"], "last": "", **row})
    return rows


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{n} ({names.count(n)})" for n in dict.fromkeys(names)) or "none"
