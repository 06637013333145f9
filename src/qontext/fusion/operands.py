"""How query, key, value and context lie in memory, and which layout of Attention says so."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch

from ..graph.dims import AnyDim
from ..ops.attention.op import OP as ATTENTION
from .rewriter import Rewriter
from .tidy import reshape_target
from .views import Atom, Axes, Axis, Step, View, flat, follow, size_of

_ROUNDED = 3e-7  # both factors of a split scale, rounded to float32


@dataclass(frozen=True)
class Operands:
    """Query, key and value in a layout of Attention, and where the context goes.

    factor:  what the chains multiplied query and key by
    result:  the value that the context replaces, behind `swallowed` (views of the context)
    reshape: the only reader of `result`, a Reshape that gets the context in the layout's axes instead of others,
             and its new target
    turn:    the key still has its last two axes the other way round
    """

    layout: str
    num_heads: int
    num_kv_heads: int
    query: ir.Value
    key: ir.Value
    value: ir.Value
    factor: float
    result: ir.Value
    swallowed: tuple[ir.Node, ...]
    reshape: tuple[ir.Node, torch.Tensor] | None = None
    turn: bool = False

    @property
    def heads(self) -> dict[str, Any]:
        """The attributes of Attention that say how its operands lie."""
        kv_heads = 0 if self.num_kv_heads == self.num_heads else self.num_kv_heads
        return {"layout": self.layout, "num_heads": self.num_heads, "num_kv_heads": kv_heads}

    def put(
        self,
        rewriter: Rewriter,
        rule: str,
        old: Sequence[ir.Node],
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        further: Sequence[ir.Value | None],
        at: ir.Node,
    ) -> None:
        """Puts the Attention in place of `old`: its context in place of `result`, or in front of the Reshape."""
        given = {**attributes, **self.heads}
        if self.reshape is None:
            rewriter.replace(rule, old, ATTENTION, inputs, given, [self.result, *further], at=at)
            return
        reader, target = self.reshape
        node = rewriter.insert(at, ATTENTION, inputs, given, origin=old)
        reader.attributes.pop("allowzero", None)
        rewriter.set_inputs(reader, {0: node.outputs[0], 1: rewriter.shape_constant(target)})
        rewriter.absorb(rule, old, node)


@dataclass(frozen=True)
class _Split:
    """Axes of one operand as batch, heads and the rest; `shared` heads are repeated by an Expand behind them."""

    batch: Axis
    heads: Axis
    length: Axis
    size: Axis

    @property
    def own_heads(self) -> Axis:
        return tuple(a for a in self.heads if not a.repeated)

    @property
    def regular(self) -> bool:
        """Repeated atoms stand behind the others, so that query head n uses key head n // group."""
        flags = [a.repeated for a in self.heads]
        return flags == sorted(flags) and not any(a.repeated for a in (*self.batch, *self.length, *self.size))


def scale_attribute(scale: float, size: AnyDim) -> float:
    """The attribute `scale` of Attention: 0, its default, where exporters rounded 1 / sqrt(D)."""
    if isinstance(size, int) and math.isclose(scale, size**-0.5, rel_tol=_ROUNDED):
        return 0.0
    return scale


def resolve(
    rewriter: Rewriter, query: View, key: View, value: View, product: ir.Value, transposed_key: bool = True
) -> Iterator[Operands]:
    """All ways to state these operands, the plainest layout first.

    Args:
        query: `[..., S, D]`, key: `[..., D, Skv]` (or not transposed), value: `[..., Skv, Dv]`, of rank 3 or 4.
        product: `[..., S, Dv]`, the product that the context comes out of.
    """
    rank = len(query.axes)
    for splits in _splits(query, key, value, transposed_key):
        q, k, v = splits
        heads, kv_heads = size_of(q.heads), size_of(k.own_heads)
        if not isinstance(heads, int) or not isinstance(kv_heads, int) or kv_heads != size_of(v.own_heads):
            continue
        if any(size_of(s.heads) not in (heads, 1) or size_of(s.batch) != size_of(q.batch) for s in (k, v)):
            continue
        if not (q.regular and k.regular and v.regular):
            continue
        for layout in ("B S (N D)", "S B (N D)", *(["B N S D"] if rank == 4 and kv_heads != heads else [])):
            steps = [_find(view, _axes(layout, s)) for view, s in zip((query, key, value), splits, strict=True)]
            if any(s is None for s in steps):
                continue
            context = _context(rewriter, product, q, v, layout, rank)
            if context is None:
                continue
            found = [s for s in steps if s is not None]
            factor = found[0].factor * found[1].factor
            values = [s.value for s in found]
            yield Operands(layout, heads, kv_heads, values[0], values[1], values[2], factor, *context)
    yield from _as_they_are(query, key, value, product, transposed_key)


def _splits(query: View, key: View, value: View, transposed: bool) -> Iterator[tuple[_Split, _Split, _Split]]:
    """Which leading atoms are the batch and which the heads: plain with four axes, to be tried with three."""
    q, k, v = query.axes, key.axes, value.axes
    if transposed:
        k = (*k[:-2], k[-1], k[-2])
    if len(q) == 4:
        yield _split(q[0], q[1], q), _split(k[0], k[1], k), _split(v[0], v[1], v)
        return
    leads = [flat(axes[:-2]) for axes in (q, k, v)]
    for i in range(len(leads[0]) + 1):
        heads = size_of(leads[0][i:])
        for j in (j for j in range(len(leads[1]) + 1) if size_of(leads[1][j:]) == heads):
            for n in (n for n in range(len(leads[2]) + 1) if size_of(leads[2][n:]) == heads):
                yield (
                    _split(leads[0][:i], leads[0][i:], q),
                    _split(leads[1][:j], leads[1][j:], k),
                    _split(leads[2][:n], leads[2][n:], v),
                )


def _split(batch: Axis, heads: Axis, axes: Axes) -> _Split:
    return _Split(batch, heads, axes[-2], axes[-1])


def _axes(layout: str, split: _Split) -> Axes:
    """The axes of an operand in a layout."""
    b, n, s, d = split.batch, split.own_heads, split.length, split.size
    return {"B S (N D)": (b, s, n + d), "S B (N D)": (s, b, n + d), "B N S D": (b, n, s, d)}[layout]


def _find(view: View, axes: Axes) -> Step | None:
    """The first value on the chain that has these axes."""
    return next((step for step in view.steps if step.axes == axes), None)


def _context(
    rewriter: Rewriter, product: ir.Value, q: _Split, v: _Split, layout: str, rank: int
) -> tuple[ir.Value, tuple[ir.Node, ...], tuple[ir.Node, torch.Tensor] | None] | None:
    """(result, swallowed, reshape) of `Operands` for a layout; None where the context never gets there."""
    size = tuple(Atom((1000, *atom.path), atom.size) for atom in v.size)  # never one of the query's atoms
    here = (q.batch, q.heads, q.length, size) if rank == 4 else (q.batch + q.heads, q.length, size)
    wanted = _axes(layout, _Split(q.batch, q.heads, q.length, size))
    way = follow(rewriter, product, here, wanted)
    if way is None or way.reshape is None:
        return None if way is None else (way.value, way.nodes, None)
    target = reshape_target(tuple(size_of(axis) for axis in wanted), rewriter.shape(way.reshape.outputs[0]))
    return None if target is None else (way.value, way.nodes, (way.reshape, target))


def _as_they_are(query: View, key: View, value: View, product: ir.Value, transposed: bool) -> Iterator[Operands]:
    """The operands of the products themselves: [B, N, S, D], or [B, S, D] as one head."""
    rank = len(query.axes)
    if rank not in (3, 4):
        return
    k = key.axes
    wanted = (*k[:-2], k[-1], k[-2]) if transposed else k
    steps = [_find(query, query.axes), _find(key, wanted), _find(value, value.axes)]
    turn = steps[1] is None
    if turn:
        steps[1] = _find(key, k)
    found = [s for s in steps if s is not None]
    if len(found) < 3:
        return
    factor = found[0].factor * found[1].factor
    heads = [size_of(axes[1]) if rank == 4 else 1 for axes in (query.axes, k, value.axes)]
    batches = [size_of(axes[0]) for axes in (query.axes, k, value.axes)]
    if not isinstance(heads[0], int) or heads[1] != heads[2] or heads[1] not in (heads[0], 1) or len(set(batches)) > 1:
        return
    layout, count = ("B N S D", 0) if rank == 4 else ("B S (N D)", 1)
    values = [s.value for s in found]
    yield Operands(layout, count, count, values[0], values[1], values[2], factor, product, (), None, turn)
