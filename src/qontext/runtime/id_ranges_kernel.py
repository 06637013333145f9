"""Device code that looks for ids outside a table."""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def outside(ids, found, at, count, limit, BLOCK: tl.constexpr):
    """Sets found[at] to 1 when one of ids `[count]` is below 0 or not below `limit`; it stays as it is otherwise.

    `found` may lie in memory of the host that the device can write to.
    """
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = number < count
    id = tl.load(ids + number, inside, 0)
    bad = tl.max(((id < 0) | (id >= limit)).to(tl.int32), 0)
    tl.store(found + at, 1, bad != 0)
