"""Device code that brings what the host has written for a run to the device: the first kernel of a CUDA graph."""

# mypy: ignore-errors

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents


@triton.jit
def land(hosts, target, turns, words, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    """Copies one of two host buffers to the device, and the other one the next time.

    Layout: hosts `[2, words]` int32, memory of the host that the device reads; target `[words]`; turns: an int32 for
    each program, the half that is its turn. Nothing is copied from a half whose first word is 0.
    """
    program = tl.program_id(0)
    at = program * BLOCK + tl.arange(0, BLOCK)
    if OVERLAP:
        gdc_launch_dependents()
    turn = tl.load(turns + program)
    source = hosts + turn.to(tl.int64) * words
    wanted = tl.load(source, volatile=True)
    value = tl.load(source + at, at < words, 0, volatile=True)
    tl.store(target + at, value, (at < words) & (wanted != 0))
    tl.store(turns + program, 1 - turn)
