"""Device code of PackIndex, in two launches: the lengths of the rows, then everything that follows from them.

Layout: mask `[B, S]` contiguous, lengths `[B]` int32 scratch, token_index `[capacity]` int64, cu_seqlens `[B+1]` and
summary `[2]` (longest, total) int32. Nothing is read back: places of token_index from the number of tokens on are
filled with B * S, which is no place of the batch and keeps the index ascending; tokens beyond its capacity are
dropped.
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def number_tokens(
    mask, lengths, token_index, cu_seqlens, summary, batch, length, capacity,
    SEQUENCES: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program numbers the tokens of one sequence; it adds up the lengths of those before it by itself."""
    b = tl.program_id(0)
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    before = tl.zeros([SEQUENCES], tl.int32)
    every = tl.zeros([SEQUENCES], tl.int32)
    longest = tl.zeros([SEQUENCES], tl.int32)
    for first in range(0, batch, SEQUENCES):
        other = first + tl.arange(0, SEQUENCES)
        found = tl.load(lengths + other, other < batch, 0)
        before += tl.where(other < b, found, 0)
        every += found
        longest = tl.maximum(longest, found)
    begin = tl.sum(before, 0)
    total = tl.sum(every, 0)
    tl.store(cu_seqlens + b + 1, begin + tl.load(lengths + b))
    if b == 0:
        tl.store(cu_seqlens, 0)
        tl.store(summary, tl.max(longest, 0))
        tl.store(summary + 1, total)
    start = b.to(tl.int64) * length
    step = tl.arange(0, BLOCK)
    for first in range(0, length, BLOCK):
        at = first + step
        kept = (tl.load(mask + start + at, at < length, 0) != 0).to(tl.int32)
        place = begin + tl.cumsum(kept, 0) - 1
        tl.store(token_index + place, start + at, (kept != 0) & (place < capacity))
        begin += tl.sum(kept, 0)
    for first in range(total + b * BLOCK, capacity, batch * BLOCK):
        tl.store(token_index + first + step, tl.full([BLOCK], batch * length, tl.int64), first + step < capacity)
