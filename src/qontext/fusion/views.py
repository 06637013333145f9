"""Chains of Reshape, Transpose and their kin, understood as one rearrangement of axes.

Exporters split heads in dozens of ways: view and permute, bmm on `[B*N, S, D]`, flattened and restored shapes. All of
them only cut axes into pieces, put pieces into another order and join them. So a chain is followed piece by piece: an
`Atom` is a piece of an axis of the value where the chain starts, and every value on the way has axes made of atoms.
Two chains do the same when their atoms end in the same order, whatever operators they used.

Axes of size 1 have no atoms, so adding and dropping them changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from ..graph.dims import AnyDim, Dim, Shape, product
from .rewriter import Rewriter

MOVERS = frozenset({"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Flatten", "Expand", "Identity"})
PICKERS = frozenset({"Split", "Slice", "Gather"})
_LONGEST = 40  # nodes; longer chains are no head splits


@dataclass(frozen=True)
class Atom:
    """A piece of an axis. `path` is the axis it was cut from and each cut (0 left, 1 right); axis -1: repeated."""

    path: tuple[int, ...]
    size: AnyDim

    @property
    def repeated(self) -> bool:
        """Made by Expand: all positions hold the same values."""
        return self.path[0] < 0


Axis = tuple[Atom, ...]
Axes = tuple[Axis, ...]


@dataclass(frozen=True)
class Step:
    """A value on the chain, its axes, and the factor that the rest of the chain multiplies it by."""

    value: ir.Value
    axes: Axes
    factor: float = 1.0


@dataclass
class View:
    """A chain: `steps` from its base to the value that was asked about; `picks` are atoms cut down to one index."""

    steps: list[Step]
    nodes: list[ir.Node] = field(default_factory=list)
    picks: dict[Atom, int] = field(default_factory=dict)

    @property
    def base(self) -> Step:
        return self.steps[0]

    @property
    def axes(self) -> Axes:
        return self.steps[-1].axes


def quotient(a: AnyDim, b: AnyDim) -> AnyDim:
    """a / b where it comes out whole, else None."""
    if a is None or b is None:
        return None
    if a == b:
        return 1
    if isinstance(a, int):
        return a // b if isinstance(b, int) and b and a % b == 0 else None
    if isinstance(b, int):
        return (
            Dim(a.symbols, a.coefficient // b, a.offset // b) if b and not (a.coefficient % b or a.offset % b) else None
        )
    if a.offset or b.offset or a.coefficient % b.coefficient:
        return None
    left = list(a.symbols)
    for symbol in b.symbols:
        if symbol not in left:
            return None
        left.remove(symbol)
    coefficient = a.coefficient // b.coefficient
    return Dim(tuple(left), coefficient) if left else coefficient


class _Walker:
    """Carries axes through nodes; cuts an atom everywhere once it is cut anywhere."""

    def __init__(self, rewriter: Rewriter):
        self.rewriter = rewriter
        self.cuts: dict[Atom, tuple[Atom, Atom]] = {}
        self.picks: dict[Atom, int] = {}
        self.repeats = 0

    def base(self, shape: Shape) -> Axes:
        return tuple(() if size == 1 else (Atom((i,), size),) for i, size in enumerate(shape))

    def fine(self, axes: Axes) -> Axes:
        """The axes with every cut applied."""
        return tuple(tuple(piece for atom in axis for piece in self._pieces(atom)) for axis in axes)

    def _pieces(self, atom: Atom) -> list[Atom]:
        if atom not in self.cuts:
            return [atom]
        left, right = self.cuts[atom]
        return self._pieces(left) + self._pieces(right)

    def cut(self, atom: Atom, size: AnyDim, rest: AnyDim) -> tuple[Atom, Atom]:
        """Cuts an atom into `size` (left) times `rest` (right)."""
        pieces = Atom((*atom.path, 0), size), Atom((*atom.path, 1), rest)
        self.cuts[atom] = pieces
        return pieces

    def regroup(self, axes: Axes, shape: Shape) -> Axes | None:
        """The same atoms in the same order as axes of `shape`; None where they do not fit."""
        todo = [atom for axis in axes for atom in axis]
        result: list[Axis] = []
        for dim in shape:
            axis: list[Atom] = []
            need = dim
            while need != 1:
                if not todo or need is None:
                    return None
                whole = quotient(need, todo[0].size)
                if whole is not None:
                    axis.append(todo.pop(0))
                    need = whole
                    continue
                rest = quotient(todo[0].size, need)
                if rest is None:
                    return None
                left, todo[0] = self.cut(todo[0], need, rest)
                axis.append(left)
                need = 1
            result.append(tuple(axis))
        return None if todo else tuple(result)

    def apply(self, node: ir.Node, axes: Axes, output: int) -> Axes | None:
        """The axes of an output of a node, from those of its first input; None where it does more than move."""
        shape = self.rewriter.shape(node.outputs[output])
        if shape is None:
            return None
        if node.op_type == "Transpose":
            order = self.rewriter.attributes(node).get("perm") or list(range(len(axes)))[::-1]
            return tuple(axes[i] for i in order)
        if node.op_type == "Expand":
            return self._expand(axes, shape)
        if node.op_type in ("Split", "Slice"):
            return self._part(node, axes, shape, output)
        if node.op_type == "Gather":
            return self._pick(node, axes)
        return self.regroup(axes, shape)

    def _expand(self, axes: Axes, shape: Shape) -> Axes | None:
        axes = ((),) * (len(shape) - len(axes)) + axes
        result: list[Axis] = []
        for axis, size in zip(axes, shape, strict=True):
            if axis or size == 1:
                result.append(axis)
                continue
            self.repeats += 1
            result.append((Atom((-1, self.repeats), size),))
        return tuple(result)

    def _pick(self, node: ir.Node, axes: Axes) -> Axes | None:
        """Gather of one index: the axis must be one atom of known size."""
        index = self.rewriter.constant(node.inputs[1])
        at = self.rewriter.attributes(node).get("axis", 0) % len(axes)
        if index is None or index.numel() != 1 or len(axes[at]) != 1 or not isinstance(axes[at][0].size, int):
            return None
        self.picks[axes[at][0]] = int(index) % axes[at][0].size
        return axes[:at] + ((),) * index.dim() + axes[at + 1 :]

    def _part(self, node: ir.Node, axes: Axes, shape: Shape, output: int) -> Axes | None:
        """Split and Slice into equal parts: the axis is cut into parts times rest, and one part picked."""
        whole = self.rewriter.shape(node.inputs[0])  # type: ignore[arg-type]
        if whole is None or len(whole) != len(shape):
            return None
        changed = [i for i, (a, b) in enumerate(zip(whole, shape, strict=True)) if a != b]
        if len(changed) != 1:
            return None
        at = changed[0]
        size, full = shape[at], whole[at]
        start = self._split_start(node, at, output) if node.op_type == "Split" else self._slice_start(node, at)
        if not isinstance(size, int) or not isinstance(full, int) or start is None or size == 0:
            return None
        if full % size or start % size or not axes[at]:
            return None
        first = axes[at][0]
        if first.size == full // size:
            head, rest = first, axes[at][1:]
        elif len(axes[at]) == 1:
            head, tail = self.cut(first, full // size, size)
            rest = (tail,)
        else:
            return None
        self.picks[head] = start // size
        return (*axes[:at], rest, *axes[at + 1 :])

    def _split_start(self, node: ir.Node, at: int, output: int) -> int | None:
        start = 0
        for value in node.outputs[:output]:
            shape = self.rewriter.shape(value)
            size = None if shape is None else shape[at]
            if not isinstance(size, int):
                return None
            start += size
        return start

    def _slice_start(self, node: ir.Node, at: int) -> int | None:
        starts, axes = self.rewriter.constant(node.inputs[1]), self.rewriter.constant(self.rewriter.input(node, 3))
        steps = self.rewriter.constant(self.rewriter.input(node, 4))
        whole = self.rewriter.shape(node.inputs[0])  # type: ignore[arg-type]
        if starts is None or whole is None or (steps is not None and bool((steps != 1).any())):
            return None
        places = list(range(starts.numel())) if axes is None else [int(a) % len(whole) for a in axes.flatten().tolist()]
        if at not in places:
            return None
        start, full = int(starts.flatten()[places.index(at)]), whole[at]
        return start + full if start < 0 and isinstance(full, int) else start


def trace(rewriter: Rewriter, value: ir.Value, picks: bool = False, scale: bool = False) -> View:
    """The chain that ends at `value`, from as far back as it can be followed.

    Args:
        picks: follow Split, Slice and Gather of one part too.
        scale: follow multiplications and divisions by one number too.
    """
    kinds = MOVERS | PICKERS if picks else MOVERS
    path: list[tuple[ir.Node, int, float]] = []
    start = value
    while len(path) < _LONGEST:
        node = start.producer()
        if node is None or node.domain != "":
            break
        factor = scale_of(rewriter, node) if scale else None
        if factor is not None:
            number, operand = factor
        elif node.op_type in kinds and node.inputs[0] is not None:
            number, operand = 1.0, node.inputs[0]
        else:
            break
        path.append((node, start.index() or 0, number))
        start = operand
    path.reverse()
    while True:  # start again behind a node that does more than move axes
        view, failed = _replay(rewriter, start, path)
        if failed is None:
            return view
        node, output, _ = path[failed]
        start, path = node.outputs[output], path[failed + 1 :]


def _replay(rewriter: Rewriter, start: ir.Value, path: Sequence[tuple[ir.Node, int, float]]) -> tuple[View, int | None]:
    walker = _Walker(rewriter)
    shape = rewriter.shape(start)
    axes = () if shape is None else walker.base(shape)
    if shape is None or None in shape:
        return View([Step(start, axes)]), 0 if path else None
    values, found = [start], [axes]
    for i, (node, output, _) in enumerate(path):
        moved = found[-1] if _multiplies(node) else walker.apply(node, walker.fine(found[-1]), output)
        if moved is None:
            return View([]), i
        values.append(node.outputs[output])
        found.append(moved)
    factor, factors = 1.0, [1.0]
    for _, _, number in reversed(path):
        factor *= number
        factors.append(factor)
    steps = [Step(v, walker.fine(a), f) for v, a, f in zip(values, found, reversed(factors), strict=True)]
    return View(steps, [node for node, _, _ in path], walker.picks), None


def _multiplies(node: ir.Node) -> bool:
    return node.op_type in ("Mul", "Div")


def scale_of(rewriter: Rewriter, node: ir.Node) -> tuple[float, ir.Value] | None:
    """(factor, operand) of a node that multiplies or divides a value by one number; None for others."""
    if node.domain != "" or not _multiplies(node):
        return None
    for i in (0, 1) if node.op_type == "Mul" else (1,):
        number, operand = rewriter.scalar(node.inputs[i]), node.inputs[1 - i]
        if number is None or operand is None or rewriter.constant(operand) is not None:
            continue
        if rewriter.rank(operand) != rewriter.rank(node.outputs[0]):
            return None
        if node.op_type == "Div":
            return (1.0 / number, operand) if number else None
        return number, operand
    return None


@dataclass(frozen=True)
class Way:
    """Where a forward walk ended: `value` has the wanted axes after `nodes`.

    reshape: a Reshape that joined or cut axes in the wanted order right after `nodes`; `value`, which it reads, then
             has the wanted atoms in other axes, and the Reshape can read them in the wanted ones.
    """

    value: ir.Value
    nodes: tuple[ir.Node, ...]
    reshape: ir.Node | None = None


def follow(rewriter: Rewriter, value: ir.Value, axes: Axes, wanted: Axes) -> Way | None:
    """Walks forward from `value` along its only readers until its axes are `wanted`; None when they never are.

    Args:
        axes: those of `value`, in atoms that `wanted` shares.
    """
    walker, nodes = _Walker(rewriter), list[ir.Node]()
    while walker.fine(axes) != walker.fine(wanted):
        node = rewriter.only_consumer(value)
        if node is None or node.domain != "" or node.op_type not in MOVERS or node.inputs[0] is not value:
            return None
        moved = walker.apply(node, walker.fine(axes), 0)
        if moved is None or len(nodes) > _LONGEST:
            return None
        here, there = walker.fine(moved), walker.fine(wanted)
        if node.op_type == "Reshape" and here != there and flat(here) == flat(there):
            return Way(value, tuple(nodes), node)
        nodes.append(node)
        axes, value = moved, node.outputs[0]
    return Way(value, tuple(nodes))


def flat(axes: Sequence[Axis]) -> Axis:
    """The atoms of several axes, one after the other."""
    return tuple(atom for axis in axes for atom in axis)


def size_of(axis: Axis) -> AnyDim:
    """The size of an axis: the product of its atoms."""
    return product([atom.size for atom in axis])
