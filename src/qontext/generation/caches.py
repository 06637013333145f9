"""The caches of a decoder: one pool of pages for all layers, who holds them, and the copies that forks ask for."""

from collections.abc import Mapping, Sequence

import torch

from ..builder.plan import Program
from ..errors import InputError
from .pages import Copy, Exhausted, Pages, table_of


class Caches:
    """Caches of all layers, with the same pages in each.

    Args:
        program: one that reads them: says their shapes and dtypes.
        states: inputs that hold a cache, of that program.
        pages: of the pool.
        tokens_per_page: tokens of a page.
    """

    def __init__(self, program: Program, states: Sequence[str], pages: int, tokens_per_page: int):
        self.pages = Pages(pages, tokens_per_page)
        self.tensors: dict[str, torch.Tensor] = {}
        for name in states:
            operand = program.operands[program.inputs[name]]
            assert operand is not None
            _, two, heads, _, size = program.input_shapes[name]
            shape = [d for d in (pages, two, heads, tokens_per_page, size) if isinstance(d, int)]
            self.tensors[name] = torch.zeros(shape, dtype=operand.type.torch, device=program.device.torch)

    @property
    def bytes(self) -> int:
        """Memory of the pools of all layers."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    @property
    def bytes_per_token(self) -> int:
        """Memory that a token takes in all layers together."""
        return self.bytes // (self.pages.count * self.pages.tokens_per_page)

    def open(self) -> int:
        """A new sequence."""
        return self.pages.open()

    def extend(self, sequence: int, tokens: int) -> Exhausted | None:
        """Makes room for tokens; None when there is, else what was missing."""
        return self._done(self.pages.extend(sequence, tokens))

    def fork(self, sequence: int) -> int:
        """A sequence that shares all pages of another, until one of them writes."""
        return self.pages.fork(sequence)

    def close(self, sequence: int) -> None:
        """Lets a sequence's pages go."""
        self.pages.close(sequence)

    def table(self, sequences: Sequence[int]) -> torch.Tensor:
        """The page table int32 [rows, M] of a step."""
        width = max((len(self.pages.table(s)) for s in sequences), default=0)
        return torch.tensor(table_of(self.pages, sequences, max(width, 1)), dtype=torch.int32)

    def updated(self, outputs: Mapping[str, torch.Tensor], states: Mapping[str, str]) -> None:
        """Asserts that a step wrote into these caches and into no copy of them."""
        for source, present in states.items():
            made, held = outputs[present], self.tensors[source]
            if made is not held and made.data_ptr() != held.data_ptr():
                raise InputError(f"the step gave {present!r} in other memory than {source!r} (a fault of qontext)")

    def _done(self, result: list[Copy] | Exhausted) -> Exhausted | None:
        if isinstance(result, Exhausted):
            return result
        for copy in result:
            for tensor in self.tensors.values():
                tensor[copy.target] = tensor[copy.source]
        return None
