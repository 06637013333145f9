"""Layers of a model: which nodes and steps belong together, and which layers are equal to their neighbours.

A layer is named by the first number in a module path ("bert.encoder.layer.3.attention" is in "bert.encoder.layer" 3).
Graphs without such paths are cut at their attentions; what is still larger than `MOST` is cut into parts.
"""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

MOST = 400
_ATTENTIONS = frozenset({"Attention", "QKVToContext", "GptAttention", "MultiHeadAttention", "Softmax"})
_NUMBERED = re.compile(r"(?:layers?|blocks?|h)_?(\d+)")

Row = dict[str, Any]
Key = tuple[str, int]


def layer_key(origin: str) -> Key | None:
    """The path and the number of the layer that a module path lies in; None outside of all layers."""
    parts = [p for p in re.split(r"[./]", origin) if p]
    for i, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[:i]), int(part)
        found = _NUMBERED.fullmatch(part)
        if found:
            return ".".join([*parts[:i], part[: found.start(1)].rstrip("_")]), int(found.group(1))
    return None


def assign_layers(nodes: Sequence[Row], steps: Sequence[Row]) -> list[Row]:
    """Writes `layer` into every node and step, and returns the layers in order.

    Args:
        nodes: imported nodes in order, with `id`, `origin`, `reads`, `step`.
        steps: steps in order, with `sources`, `origin`, `op`.
    Returns:
        One row a layer: `title`, `path`, `number`, `nodes` (ids), `steps` (positions), and `run` (see `fold`).
    """
    node_keys = [layer_key(n["origin"]) for n in nodes]
    if any(node_keys):
        by_id = {n["id"]: k for n, k in zip(nodes, node_keys, strict=True)}
        step_keys = [_step_key(s, by_id) for s in steps]
    else:
        step_keys = _cut_at_attentions(steps)
        node_keys = [step_keys[n["step"]] if n["step"] is not None else None for n in nodes]
        _pull_back(nodes, node_keys)
    of_nodes, of_steps = _settled(node_keys), _settled(step_keys)
    members: dict[Key, tuple[list[int], list[int]]] = {key: ([], []) for key in _ordered(of_nodes, of_steps)}
    for node, key in zip(nodes, of_nodes, strict=True):
        members[key][0].append(node["id"])
    for i, key in enumerate(of_steps):
        members[key][1].append(i)
    layers = [layer for key, (mine, its) in members.items() for layer in _parts(key, mine, its)]
    node_of = {n["id"]: n for n in nodes}
    for number, layer in enumerate(layers):
        for number_of_node in layer["nodes"]:
            node_of[number_of_node]["layer"] = number
        for i in layer["steps"]:
            steps[i]["layer"] = number
    if len(layers) == 1:
        layers[0]["title"] = "The whole graph"
    fold(layers, nodes, steps)
    return layers


def fold(layers: Sequence[Row], nodes: Sequence[Row], steps: Sequence[Row]) -> None:
    """Gives neighbours that are equal, before and after fusion, the same `run` number."""
    node_of = {n["id"]: n for n in nodes}
    run, previous = -1, None
    for layer in layers:
        signature = (
            layer["path"],
            _signature([node_of[i] for i in layer["nodes"]], "id"),
            _signature([steps[i] for i in layer["steps"]], "index"),
        )
        if signature != previous or not layer["path"]:
            run += 1
        layer["run"], previous = run, signature


def _signature(rows: Sequence[Row], key: str) -> tuple[Any, ...]:
    """What a layer looks like from inside: operators, and which of them read which."""
    place = {row[key]: i for i, row in enumerate(rows)}
    outside: dict[Any, int] = {}
    found = []
    for row in rows:
        reads = []
        for read in row["reads"]:
            inside = place.get(read) if not isinstance(read, str) else None
            reads.append(inside if inside is not None else -1 - outside.setdefault(read, len(outside)))
        found.append((row["op"], row.get("fate", ""), row.get("step") is None, tuple(reads)))
    return tuple(found)


def _step_key(step: Row, by_id: Mapping[int, Key | None]) -> Key | None:
    own = layer_key(step["origin"])
    if own is not None or not step["sources"]:
        return own
    counts = Counter(by_id[i] for i in step["sources"] if by_id.get(i) is not None)
    return counts.most_common(1)[0][0] if counts else None


def _cut_at_attentions(steps: Sequence[Row]) -> list[Key | None]:
    """A block begins at each attention; None before the first, and everywhere where there is but one."""
    count, keys = -1, []
    if sum(step["op"] in _ATTENTIONS for step in steps) < 2:
        return [None] * len(steps)
    for step in steps:
        if step["op"] in _ATTENTIONS:
            count += 1
        keys.append(("block", count) if count >= 0 else None)
    return keys


def _pull_back(nodes: Sequence[Row], keys: list[Key | None]) -> None:
    """Gives a node without a step the block of the first node that reads it."""
    position = {n["id"]: i for i, n in enumerate(nodes)}
    for i in range(len(nodes) - 1, -1, -1):
        for read in nodes[i]["reads"]:
            at = position.get(read) if not isinstance(read, str) else None
            if at is not None and nodes[at]["step"] is None and keys[i] is not None:
                keys[at] = keys[i]


def _settled(keys: Sequence[Key | None]) -> list[Key]:
    """What is in no layer goes before all of them, or after."""
    last = max((i for i, k in enumerate(keys) if k is not None), default=-1)
    return [key or (("after", 0) if 0 <= last < i else ("before", 0)) for i, key in enumerate(keys)]


def _ordered(node_keys: Sequence[Key], step_keys: Sequence[Key]) -> list[Key]:
    keys = list(dict.fromkeys([*node_keys, *step_keys]))
    paths = list(dict.fromkeys(path for path, _ in keys))
    paths.sort(key=lambda p: (p == "after") - (p == "before"))
    return [key for path in paths for key in sorted((k for k in keys if k[0] == path), key=lambda k: k[1])]


def _parts(key: Key, nodes: list[int], steps: list[int]) -> list[Row]:
    """The rows of one layer: one, or several where it is too large to be drawn at once."""
    path, number = key
    title = {"before": "Before the layers", "after": "After the layers", "block": f"Block {number}"}.get(
        path, f"{path} {number}".strip()
    )
    named = "" if path in ("before", "after") else path
    count = max(1, -(-len(nodes) // MOST), -(-len(steps) // MOST))
    cut = [(list(a), list(b)) for a, b in zip(_even(nodes, count), _even(steps, count), strict=True)]
    return [
        {
            "title": title if count == 1 else f"{title}, part {i + 1} of {count}",
            "path": named if count == 1 else "",
            "number": number,
            "nodes": a,
            "steps": b,
        }
        for i, (a, b) in enumerate(cut)
    ]


def _even(items: Sequence[int], count: int) -> list[Sequence[int]]:
    size = -(-len(items) // count) if items else 0
    chunks = [items[i : i + size] for i in range(0, len(items), size)] if size else []
    return list(itertools.islice(itertools.chain(chunks, itertools.repeat(())), count))
