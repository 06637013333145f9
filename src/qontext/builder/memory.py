"""Memory laid out once: one arena a size class, offsets chosen at build time.

Activations of one program have sizes like `T * 3072 bytes`: a constant for each unit of a product of symbols ("T",
"B*S"). Values of the same product form a class. Within a class every value gets a fixed offset *per unit*, so that one
layout serves every batch and length; a run multiplies by the number of units. Values that are never alive at the same
time share memory (first fit by size, as in a register allocator).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph.dims import Dim, Shape, product

ALIGNMENT = 64  # bytes; a cache line, and the widest vector register


@dataclass(frozen=True)
class Lifetime:
    """A value to be placed: written by step `first`, read last by step `last`."""

    value: int
    shape: Shape
    bytes_per_element: int
    first: int
    last: int


@dataclass(frozen=True)
class Place:
    """Where a value lies: in the arena of `size_class`, `offset_per_unit` bytes a unit from the start."""

    value: int
    size_class: tuple[str, ...]
    offset_per_unit: int
    bytes_per_unit: int


@dataclass(frozen=True)
class Layout:
    """All places, and the bytes a unit of every class."""

    places: dict[int, Place]
    bytes_per_unit: dict[tuple[str, ...], int]

    def total_bytes(self, sizes: dict[str, int]) -> int:
        """Bytes of all arenas together for given sizes."""
        total = 0
        for size_class, each in self.bytes_per_unit.items():
            total += each * Dim(size_class).value(sizes) if size_class else each
        return total


def size_class_of(shape: Shape, bytes_per_element: int) -> tuple[tuple[str, ...], int] | None:
    """The class of a shape and its bytes a unit; None when a dimension is unknown or has an offset ("S+1")."""
    total = product(shape)
    if total is None:
        return None
    if isinstance(total, int):
        return (), _aligned(total * bytes_per_element)
    if total.offset:
        return None
    return total.symbols, _aligned(total.coefficient * bytes_per_element)


def plan_memory(lifetimes: Sequence[Lifetime]) -> Layout:
    """Places every value whose size class is known; the others are left to the allocator."""
    classes: dict[tuple[str, ...], list[tuple[Lifetime, int]]] = {}
    for life in lifetimes:
        found = size_class_of(life.shape, life.bytes_per_element)
        if found is not None:
            classes.setdefault(found[0], []).append((life, found[1]))
    places: dict[int, Place] = {}
    totals: dict[tuple[str, ...], int] = {}
    for size_class, members in classes.items():
        placed: list[tuple[Lifetime, Place]] = []
        for life, size in sorted(members, key=lambda m: (-m[1], m[0].first)):
            offset = _first_gap([p for other, p in placed if _overlap(life, other)], size)
            place = Place(life.value, size_class, offset, size)
            placed.append((life, place))
            places[life.value] = place
        totals[size_class] = max(p.offset_per_unit + p.bytes_per_unit for _, p in placed)
    return Layout(places, totals)


def _aligned(count: int) -> int:
    return max(ALIGNMENT, -(-count // ALIGNMENT) * ALIGNMENT)


def _overlap(a: Lifetime, b: Lifetime) -> bool:
    return a.first <= b.last and b.first <= a.last


def _first_gap(taken: Sequence[Place], size: int) -> int:
    offset = 0
    for place in sorted(taken, key=lambda p: p.offset_per_unit):
        if place.offset_per_unit - offset >= size:
            return offset
        offset = max(offset, place.offset_per_unit + place.bytes_per_unit)
    return offset
