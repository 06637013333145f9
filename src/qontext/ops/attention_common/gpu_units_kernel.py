"""Device code that lists the units of work of attention over packed or padded sequences, most work first."""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from .gpu_tiles import counted, sequence

TILE = tl.constexpr(64)  # queries and keys of a tile
TEAMS = tl.constexpr(4)  # tiles of queries that a unit has at most
ENTRY = tl.constexpr(8)  # numbers of an entry


@triton.jit
def ends_of(b, bounds_q, bounds_k, counts, rows, keys):
    """Of sequences b: end of the queries, their number, end of the keys that count, their number."""
    first, count = sequence(b, bounds_q, rows)
    first_key, valid = sequence(b, bounds_k, keys)
    if bounds_q is None:
        first = b * rows
    if bounds_k is None:
        first_key = b * keys
    valid = tl.minimum(counted(b, counts, valid), valid)
    return first + count, count, first_key + valid, valid


@triton.jit
def piece(item, items, bounds_q, bounds_k, counts, rows, keys, parts):
    """Of items `[R]`, each a part of a sequence: end of the sequence's queries, queries from the part on, tiles of the
    part (none where the sequence has fewer parts), end of the keys, keys that count."""
    here = item < items
    b = tl.where(here, item // parts, 0)
    end, count, key_end, valid = ends_of(b, bounds_q, bounds_k, counts, rows, keys)
    all_tiles = (count + TILE - 1) // TILE
    own_parts = tl.maximum((all_tiles + TEAMS - 1) // TEAMS, 1)
    each = (all_tiles + own_parts - 1) // own_parts
    done = item % parts * each
    tiles = tl.where(here, tl.maximum(tl.minimum(all_tiles - done, each), 0), 0)
    return end, count - done * TILE, tiles, key_end, valid


@triton.jit
def work_of(tiles, valid):
    """Pairs of tiles of queries and keys; 0 for no queries alone."""
    return tiles * tl.maximum((valid + TILE - 1) // TILE, 1)


@triton.jit
def list_units(
    bounds_q, bounds_k, counts, table, items, rows, keys, parts, BLOCK: tl.constexpr, OVERLAP: tl.constexpr
):  # fmt: skip
    """Fills `table` `[1 + items, ENTRY]` int32: first the number of parts with queries, then these by falling work.

    items: sequences times parts of the longest one. One program lists BLOCK items, counting those that come before.
    """
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    mine = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    end, left, tiles, key_end, valid = piece(mine, items, bounds_q, bounds_k, counts, rows, keys, parts)
    work = work_of(tiles, valid)
    rank = tl.zeros([BLOCK], tl.int32)
    filled = 0
    for start in range(0, items, BLOCK):
        other = start + tl.arange(0, BLOCK)
        _, _, other_tiles, _, other_valid = piece(other, items, bounds_q, bounds_k, counts, rows, keys, parts)
        other_work = work_of(other_tiles, other_valid)
        before = (other_work[None, :] == work[:, None]) & (other[None, :] < mine[:, None])
        rank += tl.sum(((other_work[None, :] > work[:, None]) | before).to(tl.int32), 1)
        filled += tl.sum((other_tiles > 0).to(tl.int32), 0)
    if tl.program_id(0) == 0:
        tl.store(table, filled)
    at = table + (rank + 1) * ENTRY
    listed = tiles > 0
    tl.store(at, end, mask=listed)
    tl.store(at + 1, left, mask=listed)
    tl.store(at + 2, tiles, mask=listed)
    tl.store(at + 3, key_end, mask=listed)
    tl.store(at + 4, valid, mask=listed)
