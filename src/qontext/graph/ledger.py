"""The ledger: where every imported node went.

Each node of the imported graph gets an integer id. A pass may fuse nodes (their ids move to the new node), fold them
(they became a constant) or remove them (nobody needs their result); at every pass border
live + folded + removed = imported, each id exactly once. `explain` is made from this ledger alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ..errors import GraphError, all_problems

_IDS = "qontext.ids"
_ORIGIN = "qontext.origin"


@dataclass(frozen=True)
class Source:
    """An imported node.

    id:      its number
    origin:  module path, or the ONNX node name
    reads:   what it reads: ids of nodes, and names of inputs of the graph; weights are left out
    type:    dtypes and shapes of its results, "float32[B, S, 768]"; empty before inference has run
    """

    id: int
    op_type: str
    name: str
    origin: str
    reads: tuple[int | str, ...] = ()
    type: str = ""


@dataclass(frozen=True)
class Fusion:
    """One application of a rule: the imported nodes it took, what stood there before, and what stands there now."""

    rule: str
    ids: tuple[int, ...]
    before: tuple[str, ...]
    after: str
    node: str
    origin: str
    note: str = ""


@dataclass(frozen=True)
class Refusal:
    """One place where a rule did not apply, and why; `depth` counts the conditions that held before it failed."""

    rule: str
    node: str
    ids: tuple[int, ...]
    origin: str
    reason: str
    depth: int = 0


def ids_of(node: ir.Node) -> tuple[int, ...]:
    """The imported nodes that this node stands for."""
    text = node.metadata_props.get(_IDS, "")
    return tuple(int(i) for i in text.split(",")) if text else ()


def set_ids(node: ir.Node, ids: Iterable[int]) -> None:
    """Says which imported nodes this node stands for."""
    node.metadata_props[_IDS] = ",".join(str(i) for i in sorted(set(ids)))


def origin_of(node: ir.Node) -> str:
    """Where a node comes from: the module path of the source model, else the name of the imported node."""
    return node.metadata_props.get(_ORIGIN) or node.name or ""


def set_origin(node: ir.Node, origin: str) -> None:
    node.metadata_props[_ORIGIN] = origin


def common_origin(nodes: Sequence[ir.Node]) -> str:
    """The longest dotted prefix that all origins share; the first origin where they share none."""
    paths = [origin_of(n).split(".") for n in nodes if origin_of(n)]
    if not paths:
        return ""
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or ".".join(paths[0])


def _read_from(value: ir.Value | None) -> tuple[int | str, ...]:
    """Where a value comes from: the ids of its node, or the name of an input; nothing for a weight."""
    if value is None or value.is_initializer():
        return ()
    producer = value.producer()
    return ids_of(producer) if producer is not None else (value.name or "",)


@dataclass
class Ledger:
    """Sources by id, their fates, and the records of what rules did and did not do."""

    sources: dict[int, Source] = field(default_factory=dict)
    folded: dict[int, str] = field(default_factory=dict)
    removed: dict[int, str] = field(default_factory=dict)
    fusions: list[Fusion] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def adopt(self, graph: ir.Graph) -> None:
        """Numbers all nodes of a freshly imported graph."""
        for node in graph:
            number = len(self.sources)
            reads = tuple(dict.fromkeys(r for value in node.inputs for r in _read_from(value)))
            self.sources[number] = Source(number, node.op_type, node.name or "", origin_of(node), reads)
            set_ids(node, (number,))

    def fuse(self, rule: str, old: Sequence[ir.Node], new: ir.Node, note: str = "") -> None:
        """Moves the ids of `old` to `new` and records the application."""
        ids = tuple(sorted({i for n in old for i in ids_of(n)} | set(ids_of(new))))
        set_ids(new, ids)
        if not new.metadata_props.get(_ORIGIN):
            set_origin(new, common_origin(old))
        before = tuple(n.op_type for n in old)
        self.fusions.append(Fusion(rule, ids, before, new.op_type, new.name or "", origin_of(new), note))

    def fold(self, node: ir.Node, reason: str) -> None:
        """The node's result became a constant."""
        self.folded.update(dict.fromkeys(ids_of(node), reason))

    def remove(self, node: ir.Node, reason: str) -> None:
        """The node is gone without a successor."""
        self.removed.update(dict.fromkeys(ids_of(node), reason))

    def refuse(self, rule: str, node: ir.Node, reason: str, depth: int = 0) -> None:
        """The rule looked at this node and did not apply."""
        self.refusals.append(Refusal(rule, node.name or "", ids_of(node), origin_of(node), reason, depth))

    def check(self, graph: ir.Graph) -> None:
        """Raises GraphError unless every imported node is live, folded or removed, exactly once."""
        seen: dict[int, str] = {}
        problems = []

        def count(number: int, where: str) -> None:
            if number in seen:
                problems.append(f"node {number} is {seen[number]} and {where}")
            seen[number] = where

        for node in graph:
            for number in ids_of(node):
                count(number, f"live in {node.op_type} {node.name!r}")
        for number in self.folded:
            count(number, "folded")
        for number in self.removed:
            count(number, "removed")
        for number, source in self.sources.items():
            if number not in seen:
                problems.append(f"node {number} ({source.op_type} {source.name!r}) is lost")
        problems += [f"id {n} was never imported" for n in seen if n not in self.sources]
        if problems:
            raise GraphError(all_problems("the ledger does not add up (a fault of qontext)", problems))
