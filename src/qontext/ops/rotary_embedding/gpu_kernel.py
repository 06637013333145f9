"""Device code of RotaryEmbedding.

x and y have the same layout: element (b, s, n, d) at b * batch_stride + s * token_stride + n * head_stride + d.
cos, sin: `[entries, PAIRS]`, the row of token (b, s) is position_ids[b, s], or b * length + s without position_ids.
A position outside the table gives NaN, and no memory outside it is read. Products in float32; 64-bit addresses.
"""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def rotate(
    x, cos, sin, position_ids, y, length, heads, entries, batch_stride, token_stride, head_stride,
    SIZE: tl.constexpr, PAIRS: tl.constexpr, HALF: tl.constexpr,
    HEADS: tl.constexpr, COLUMNS: tl.constexpr, REST: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One program turns HEADS heads of one token, and copies what has no pair (REST >= SIZE - 2 PAIRS columns)."""
    token = tl.program_id(0)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    pair = tl.arange(0, COLUMNS)
    start = (token // length).to(tl.int64) * batch_stride + (token % length).to(tl.int64) * token_stride
    rows = start + head.to(tl.int64)[:, None] * head_stride
    if OVERLAP:
        gdc_wait()
        gdc_launch_dependents()
    if position_ids is not None:
        place = tl.load(position_ids + token).to(tl.int64)
    else:
        place = token.to(tl.int64)
    known = (place >= 0) & (place < entries)
    turning = pair < PAIRS
    entry = tl.where(known, place, 0) * PAIRS + pair
    c = tl.where(known, tl.load(cos + entry, turning, 0.0).to(tl.float32), float("nan"))[None, :]
    s = tl.where(known, tl.load(sin + entry, turning, 0.0).to(tl.float32), float("nan"))[None, :]
    present = (head < heads)[:, None]
    if HALF:
        inside = present & turning[None, :]
        a_at = rows + pair[None, :]
        b_at = rows + (pair + PAIRS)[None, :]
        a = tl.load(x + a_at, inside, 0.0).to(tl.float32)
        b = tl.load(x + b_at, inside, 0.0).to(tl.float32)
        tl.store(y + a_at, (a * c - b * s).to(y.dtype.element_ty), inside)
        tl.store(y + b_at, (b * c + a * s).to(y.dtype.element_ty), inside)
    else:
        # Neighbours are read as they lie and taken apart in registers, so that accesses stay wide.
        number = tl.arange(0, 2 * COLUMNS)
        inside = present & (number < 2 * PAIRS)[None, :]
        v = tl.load(x + rows + number[None, :], inside, 0.0).to(tl.float32)
        a, b = tl.split(tl.reshape(v, [HEADS, COLUMNS, 2]))
        turned = tl.reshape(tl.join(a * c - b * s, b * c + a * s), [HEADS, 2 * COLUMNS])
        tl.store(y + rows + number[None, :], turned.to(y.dtype.element_ty), inside)
    if SIZE > 2 * PAIRS:
        kept = 2 * PAIRS + tl.arange(0, REST)
        staying = present & (kept < SIZE)[None, :]
        tl.store(y + rows + kept[None, :], tl.load(x + rows + kept[None, :], staying), staying)
