"""Device code of EmbedLayerNorm.

Layout: ids and kinds `[rows]` (packed tokens, or `[B, S]` row by row), tables `[entries, WIDTH]`, y and total
`[rows, WIDTH]`, all contiguous. PLACES says where positions come from:
    "given"    places `[rows]`
    "shared"   places `[length]`, the same for every sequence
    "counted"  offset + number of the token in its sequence
    "padding"  RoBERTa: padding_idx + number of tokens up to this one that are not padding; padding_idx for padding
    "none"     no position table
Nothing outside a table is ever read: a row whose id, position or kind lies outside becomes NaN, so that it cannot
pass for a result. Sums and statistics in float32; 64-bit addresses.
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..gpu_norm_kernel import normalise


@triton.jit
def embedded(table, id, entries, column, inside, WIDTH: tl.constexpr):
    """The rows `id` of a table as a tile, NaN for ids outside it."""
    known = (id >= 0) & (id < entries)
    v = tl.load(table + id.to(tl.int64)[:, None] * WIDTH + column[None, :], inside & known[:, None], 0.0)
    return tl.where(known[:, None], v.to(tl.float32), float("nan"))


@triton.jit
def places_of(
    ids, places, row, length, offset, padding, present, PLACES: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr
):
    """The positions of ROWS tokens."""
    at = row % length
    if PLACES == "given":
        place = tl.load(places + row, present, 0)
    elif PLACES == "shared":
        place = tl.load(places + at, present, 0)
    elif PLACES == "padding":
        before = tl.zeros([ROWS], tl.int32)
        for first in range(0, length, STEP):
            other = first + tl.arange(0, STEP)
            counted = (other[None, :] <= at[:, None]) & present[:, None]
            near = tl.load(ids + (row - at).to(tl.int64)[:, None] + other[None, :], counted, padding)
            before += tl.sum((near != padding).to(tl.int32), 1)
        mine = tl.load(ids + row, present, padding)
        place = padding + tl.where(mine != padding, before, 0)
    else:
        place = offset + at
    return place


@triton.jit
def embed_rows(
    ids, words, places, positions, kinds, types, weight, bias, y, total,
    rows, length, vocabulary, position_entries, type_entries, offset, padding, epsilon,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, ROWS: tl.constexpr, PLACES: tl.constexpr, STEP: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program looks up, adds and normalises ROWS tokens."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    present = row < rows
    inside = present[:, None] & (column < WIDTH)[None, :]
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    v = embedded(words, tl.load(ids + row, present, 0), vocabulary, column, inside, WIDTH)
    if PLACES != "none":
        place = places_of(ids, places, row, length, offset, padding, present, PLACES, ROWS, STEP)
        v += embedded(positions, place, position_entries, column, inside, WIDTH)
    if types is not None:
        if kinds is not None:
            kind = tl.load(kinds + row, present, 0)
        else:
            kind = tl.zeros([ROWS], tl.int32)
        v += embedded(types, kind, type_entries, column, inside, WIDTH)
    # Columns beyond the width are zeros again, also in rows of NaN.
    v = tl.where((column < WIDTH)[None, :], v, 0.0)
    at = row.to(tl.int64)[:, None] * WIDTH + column[None, :]
    if total is not None:
        tl.store(total + at, v.to(total.dtype.element_ty), inside)
    z = normalise(v, inside, weight, bias, column, epsilon, WIDTH, True)
    tl.store(y + at, z.to(y.dtype.element_ty), inside)
