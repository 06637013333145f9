"""Batching by token budget, outside the graph: sort by length, fill by tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import ArgumentError


@dataclass(frozen=True)
class Batch:
    """One batch: positions in the caller's list, longest first, and what it costs."""

    indices: tuple[int, ...]
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens that a packed run computes."""
        return sum(self.lengths)

    @property
    def padded_tokens(self) -> int:
        """Tokens that a padded run would compute."""
        return len(self.lengths) * max(self.lengths, default=0)


def plan_batches(lengths: Sequence[int], max_tokens: int, max_sequences: int | None = None) -> list[Batch]:
    """Cuts sequences into batches.

    Args:
        lengths: tokens of each sequence.
        max_tokens: budget of a batch, counted padded (batch x longest), which is what `Engine.run` limits. A single
            sequence over the budget is an error, never cut in silence.
        max_sequences: most sequences of a batch.
    Returns:
        Batches of neighbouring lengths, longest first; every index exactly once.
    Raises:
        ArgumentError: for a budget under 1 or sequences that fit no batch.
    """
    if max_tokens < 1 or (max_sequences is not None and max_sequences < 1):
        raise ArgumentError(
            f"plan_batches: max_tokens={max_tokens} and max_sequences={max_sequences} must be at least 1"
        )
    long = [i for i, n in enumerate(lengths) if n > max_tokens]
    if long:
        raise ArgumentError(
            f"plan_batches: {len(long)} sequences are longer than the budget of {max_tokens} tokens, the first is "
            f"number {long[0]} with {lengths[long[0]]}; raise max_tokens or shorten them"
        )
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches: list[Batch] = []
    current: list[int] = []
    for index in order:
        longest = lengths[current[0]] if current else lengths[index]
        full = (len(current) + 1) * longest > max_tokens or len(current) == max_sequences
        if current and full:
            batches.append(_batch(current, lengths))
            current = []
        current.append(index)
    if current:
        batches.append(_batch(current, lengths))
    return batches


def _batch(indices: Sequence[int], lengths: Sequence[int]) -> Batch:
    return Batch(tuple(indices), tuple(lengths[i] for i in indices))


def windows(length: int, size: int, stride: int) -> Iterator[tuple[int, int]]:
    """Overlapping windows over a long sequence: (begin, end), each `size` long, `stride` tokens apart.

    The last window ends at `length`. Raises ArgumentError unless 0 < stride <= size.
    """
    if not 0 < stride <= size:
        raise ArgumentError(f"windows: stride is {stride}, it must be between 1 and the window size {size}")
    begin = 0
    while True:
        end = min(begin + size, length)
        yield begin, end
        if end == length:
            return
        begin += stride
