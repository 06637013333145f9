"""Mask arithmetic, known by what it computes.

Whatever operators lead from an input like `attention_mask` to what is added to the scores, or to the condition of a
Where: they are run on zeros, ones and random patterns. When the result is one value where the mask allows and another
where it does not, the attention can take the boolean mask itself, and the values say what a wholly masked row gets.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from ..dtypes import from_onnx
from ..errors import NoFusion
from ..graph.mask_use import used_as_mask
from .evaluate import Trial, sources, trial_sizes
from .rewriter import Rewriter

_WEAKEST = -1e3  # a fill above this is a bias: what it masks keeps a share of the softmax
_SWALLOWED = 60.0  # scores closer together than this are lost when a fill with such a rounding step is added to them


@dataclass(frozen=True)
class Fact:
    """What a mask computes: attend where `root` is true (false when `inverted`), and only backwards when `causal`.

    root:   [B, Skv] with place "keys", [S, Skv] with "rows", [B, S, Skv] with "batch", four axes with "whole";
            None when the mask depends on no input
    fill:   what is added to a masked score, relative to an allowed one; None for a boolean mask
    """

    root: ir.Value | None
    place: str = "keys"
    inverted: bool = False
    causal: bool = False
    fill: float | None = None
    nodes: tuple[ir.Node, ...] = ()

    @property
    def everything(self) -> bool:
        """It masks nothing."""
        return self.root is None and not self.causal


_PLACES: dict[int, dict[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    2: {"keys": lambda r: r[:, None, None, :], "rows": lambda r: r[None, None]},
    3: {"batch": lambda r: r[:, None]},
    4: {"whole": lambda r: r},
}


def understand(rewriter: Rewriter, mask: ir.Value, axes: Sequence[int] = ()) -> Fact:
    """What a mask computes. Raises NoFusion with the reason when it is no plain mask.

    Args:
        mask: [B, Skv], or four axes once axes of size 1 are put in at `axes`.
    """
    known = rewriter.notes.get(("mask", mask, *axes))
    if known is None:
        try:
            known = _understand(rewriter, mask, axes)
        except NoFusion as no:
            known = no.reason
        rewriter.notes["mask", mask, *axes] = known
    if isinstance(known, str):
        raise NoFusion(known)
    assert isinstance(known, Fact)
    return known


def _understand(rewriter: Rewriter, mask: ir.Value, axes: Sequence[int]) -> Fact:
    leaves, nodes = sources(rewriter, mask)
    if leaves == [mask] and mask.dtype != ir.DataType.BOOL:
        raise NoFusion(f"the mask {mask.name!r} is added as it is given, its values are known at run time only")
    sizes = trial_sizes(rewriter, mask, nodes)
    if not leaves:
        patterns = [_four_axes(Trial(rewriter, s, {}).run(mask), axes) for s in sizes]
        causal, fill = _agree([_classify(pattern, [pattern], [None]) for pattern in patterns])
        return Fact(None, causal=causal, fill=fill, nodes=tuple(nodes))
    reasons = [] if len(leaves) == 1 else [f"it depends on {', '.join(repr(v.name) for v in leaves[:3])} together"]
    for root in _roots(rewriter, leaves, nodes):
        places = _PLACES.get(rewriter.rank(root) or 0, {})
        try:
            probes = [_probe(rewriter, root, s) for s in sizes]
            results = [[_four_axes(t.run(mask), axes) for t in probe.trials] for probe in probes]
            for probe, tensors in zip(probes, results, strict=True):
                probe.check_other_numbers(root, tensors)
        except NoFusion as no:
            reasons.append(no.reason)
            continue
        for place, inverted in ((p, i) for p in places for i in (False, True)):
            try:
                if inverted and probes[0].is_compared_with_one(results[0]):
                    raise NoFusion(f"{root.name!r} is compared with 1 and may hold ids")
                found = [p.classify(r, places[place], inverted) for p, r in zip(probes, results, strict=True)]
                causal, fill = _agree(found)
            except NoFusion as no:
                reasons.append(no.reason)
                continue
            return Fact(root, place, inverted, causal, fill, tuple(nodes))
    reason = next(iter(reasons), f"{leaves[0].name!r}, which it depends on, is no mask of tokens")
    raise NoFusion(f"the mask {mask.name!r} is no mask kind: {reason}")


def _roots(rewriter: Rewriter, leaves: list[ir.Value], nodes: list[ir.Node]) -> Iterator[ir.Value]:
    """Values that the mask may be a function of: its one source, then booleans made from its sources."""
    if len(leaves) == 1:
        yield leaves[0]
    booleans = [v for n in nodes for v in n.outputs if v.dtype == ir.DataType.BOOL and rewriter.rank(v) in _PLACES]
    yield from (v for v in reversed(booleans) if sources(rewriter, v)[0])


def _four_axes(tensor: torch.Tensor, axes: Sequence[int]) -> torch.Tensor:
    for axis in sorted(axes):
        tensor = tensor.unsqueeze(axis)
    if tensor.dim() == 2:
        return tensor[:, None, None, :]
    if tensor.dim() != 4:
        raise NoFusion(f"it has {tensor.dim()} axes")
    return tensor


@dataclass(frozen=True)
class _Probe:
    """Trials with patterns of 0 and 1 in place of the root, then with two other numbers unless it is boolean."""

    patterns: tuple[torch.Tensor, ...]
    trials: tuple[Trial, ...]

    def classify(
        self, results: Sequence[torch.Tensor], wide: Callable[[torch.Tensor], torch.Tensor], inverted: bool
    ) -> tuple[bool, float | None]:
        """(causal, fill) when the results are that function of the patterns. Raises NoFusion when they are not."""
        count = len(self.patterns)
        allowed = [wide((p != 0) != inverted) for p in self.patterns]
        return _classify(results[0 if inverted else 1], results[:count], allowed)

    def is_compared_with_one(self, results: Sequence[torch.Tensor]) -> bool:
        """Other numbers than 0 and 1 count as 0: what ids that are compared with a padding id 1 do."""
        others = results[len(self.patterns) :]
        return bool(others) and all(torch.equal(results[0], other) for other in others)

    def check_other_numbers(self, root: ir.Value, results: Sequence[torch.Tensor]) -> None:
        """Other numbers than 0 and 1 count as 1, or an input of whole numbers is used as a 0/1 mask."""
        others = results[len(self.patterns) :]
        if all(torch.equal(results[1], other) for other in others):
            return
        if root.dtype is not None and root.dtype.is_floating_point():
            raise NoFusion(f"{root.name!r} holds fractions, which it weighs")
        if root.producer() is not None or any(u.node.op_type.startswith("Gather") and u.idx == 1 for u in root.uses()):
            raise NoFusion(f"{root.name!r} is no 0/1 mask")
        if not used_as_mask(root):
            raise NoFusion(f"{root.name!r} is used as numbers: nothing compares it or subtracts it from one")


def _probe(rewriter: Rewriter, root: ir.Value, sizes: dict[str, int]) -> _Probe:
    """The trials of a root under these sizes, made once: layers share most of their mask arithmetic."""
    key = ("probe", root, *sizes.items())
    if key not in rewriter.notes:
        shape = Trial(rewriter, sizes, {}).shape(root)
        kind = torch.float32 if root.dtype is None else from_onnx(root.dtype).torch
        generator = torch.Generator().manual_seed(sum(shape))
        patterns = [torch.zeros(shape), torch.ones(shape)]
        patterns += [torch.rand(shape, generator=generator).round() for _ in range(3)]
        numbers: tuple[float, ...] = (0.5, 2.0) if kind.is_floating_point else (2, 7)
        others = [] if kind is torch.bool else [torch.full(shape, n) for n in numbers]
        trials = tuple(Trial(rewriter, sizes, {root: p.to(kind)}) for p in (*patterns, *others))
        rewriter.notes[key] = _Probe(tuple(patterns), trials)
    probe = rewriter.notes[key]
    assert isinstance(probe, _Probe)
    return probe


def _classify(
    full: torch.Tensor, results: Sequence[torch.Tensor], allowed: Sequence[torch.Tensor | None]
) -> tuple[bool, float | None]:
    """Finds (causal, fill) such that each result is one value where its pattern allows and another elsewhere.

    Args:
        full: the result when everything is allowed.
        allowed: the patterns, None for "everything".
    """
    high = full.amax()
    if full.dtype == torch.bool and not bool(high):
        raise NoFusion("it allows nothing")
    if full.is_floating_point() and not (bool(high.isfinite()) and all(bool((r == r).all()) for r in results)):
        raise NoFusion("it computes NaN, or masks everything")
    reachable = full == high
    queries, keys = reachable.shape[-2:]
    causal = not bool(reachable.all())
    backwards = torch.ones(queries, keys, dtype=torch.bool).tril()
    if causal and (queries == 1 or not bool((reachable == backwards).all())):
        raise NoFusion("which keys it allows depends on positions, but not causally")
    lows: list[torch.Tensor] = []
    for result, pattern in zip(results, allowed, strict=True):
        try:
            inside = reachable if pattern is None else reachable & pattern
            inside, result = torch.broadcast_tensors(inside, result)
        except RuntimeError:
            raise NoFusion("its shape is not that of the mask") from None
        if not bool((result[inside] == high).all()) or bool((result[~inside] == high).any()):
            raise NoFusion("it is not the same function of each element of the mask")
        lows.append(result[~inside])
    low = torch.cat(lows)
    if low.numel() and not bool((low == low[0]).all()):
        raise NoFusion(f"it adds different values to masked scores, {float(low.min()):g} to {float(low.max()):g}")
    if full.dtype == torch.bool:
        return causal, None
    fill = float(low[0].double() - high.double()) if low.numel() else 0.0
    if fill > 0:
        raise NoFusion("it raises what it should mask")
    return causal, fill


def _agree(found: list[tuple[bool, float | None]]) -> tuple[bool, float | None]:
    if len(set(found)) != 1:
        raise NoFusion("it masks differently for different sizes")
    return found[0]


def empty_row_of(fill: float, dtype: ir.DataType | None, replaced: bool = False) -> str:
    """What a wholly masked row gets. Raises NoFusion for a fill too weak to be a mask.

    Args:
        fill: added to every score of the row, or put in place of it (`replaced`).
        dtype: of the scores. A fill so large that the sum keeps nothing of the scores makes the row uniform.
    """
    if fill == -math.inf:
        return "zeros"
    if not fill <= _WEAKEST:
        raise NoFusion(f"masked scores {'become' if replaced else 'get'} {fill:g}, and masks start at {_WEAKEST:g}")
    kind = torch.float32 if dtype is None else from_onnx(dtype).torch
    swallows = -fill * torch.finfo(kind).eps >= _SWALLOWED
    return "uniform" if replaced or swallows else "as_unmasked"
