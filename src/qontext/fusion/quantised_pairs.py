"""Pairs of QuantizeLinear and DequantizeLinear: what they hold, and a graph as it would be without them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import onnx_ir as ir
import torch

from .rewriter import Rewriter
from .rule import Conditions


@dataclass(frozen=True)
class Pair:
    """into, back:  the two nodes
    reader, index: the only operand that reads the pair
    scale:         of a step of what they hold
    lowest:        the least number of steps that they hold, of 256: -128 where 0 is in the middle, 0 without negatives
    """

    into: ir.Node
    back: ir.Node
    reader: ir.Node
    index: int
    scale: float
    lowest: int

    @property
    def source(self) -> ir.Value:
        value = self.into.inputs[0]
        assert value is not None
        return value

    def same(self, other: "Pair") -> bool:
        """Holding what the other held changes nothing."""
        return (self.scale, self.lowest) == (other.scale, other.lowest)


def pair_before(seen: Conditions, rewriter: Rewriter, reader: ir.Node, index: int) -> Pair | None:
    """The pair whose result an operand is; None when it is none. Refuses pairs that kernels of bytes cannot stand for:
    scales by axis or computed ones, other types than bytes, results that are read elsewhere too."""
    back = rewriter.producer(reader.inputs[index], "DequantizeLinear")
    into = None if back is None else rewriter.producer(back.inputs[0], "QuantizeLinear")
    if back is None or into is None or into.inputs[0] is None:
        return None
    scale, zero, dtype = scale_of_bytes(seen, rewriter, into, back)
    alone = rewriter.only_consumer(into.outputs[0]) is back and rewriter.only_consumer(back.outputs[0]) is reader
    once = sum(use.node is reader for use in back.outputs[0].uses()) == 1
    seen.holds(alone and once, "what it holds is read elsewhere too", into)
    return Pair(into, back, reader, index, scale, (0 if dtype == torch.uint8 else -128) - zero)


def scale_of_bytes(
    seen: Conditions, rewriter: Rewriter, into: ir.Node, back: ir.Node
) -> tuple[float, int, torch.dtype]:
    """Scale, zero and type of a pair whose halves agree, and that makes bytes by a positive scale."""
    scale, zero, dtype = _parameters(seen, rewriter, into)
    again, middle, _ = _parameters(seen, rewriter, back)
    same = again == scale and middle == zero
    seen.holds(same, f"it is quantised by {scale:g} ({zero}) and dequantised by {again:g} ({middle})", back)
    seen.holds(dtype in (torch.uint8, torch.int8), f"it becomes {dtype}, the kernels multiply bytes", into)
    seen.holds(scale > 0, f"its scale is {scale:g}", into)
    return scale, zero, dtype


def _parameters(seen: Conditions, rewriter: Rewriter, node: ir.Node) -> tuple[float, int, torch.dtype]:
    """Scale, zero and type of a pair's half, which must be constants of one element."""
    scale = seen.found(rewriter.constant(node.inputs[1]), "the scale is no constant", node)
    zero = rewriter.constant(rewriter.input(node, 2))
    given = rewriter.input(node, 2) is not None
    seen.holds(zero is not None or not given, "the zero point is no constant", node)
    seen.holds(scale.numel() == 1, f"the activations have {scale.numel()} scales, one for all is wanted", node)
    if zero is None:
        return float(scale), 0, torch.uint8
    seen.holds(zero.numel() == 1, f"the activations have {zero.numel()} zero points, one for all is wanted", node)
    return float(scale), int(zero), zero.dtype


@contextmanager
def without(pairs: Sequence[Pair]) -> Iterator[None]:
    """The graph in which those who read a pair read what it holds; afterwards it is as it was."""
    sources = take_out(pairs)
    try:
        yield
    finally:
        for pair, source in reversed(list(zip(pairs, sources, strict=True))):
            pair.into.replace_input_with(0, source)
            pair.reader.replace_input_with(pair.index, pair.back.outputs[0])


def take_out(pairs: Sequence[Pair]) -> list[ir.Value]:
    """Lets those who read pairs read what they hold, which is returned; the pairs read nothing any more."""
    sources = []
    for pair in pairs:
        source = pair.source
        pair.reader.replace_input_with(pair.index, source)
        pair.into.replace_input_with(0, None)
        sources.append(source)
    return sources
