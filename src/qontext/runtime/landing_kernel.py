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
    inside = at < words
    if OVERLAP:
        gdc_launch_dependents()
    turn = tl.load(turns + program)
    source = hosts + turn.to(tl.int64) * words
    wanted = tl.load(source, volatile=True)
    value = tl.load(source + at, inside, 0, volatile=True)
    tl.store(target + at, value, inside & (tl.broadcast_to(wanted, at.shape) != 0))
    # Every thread has to know whose turn it was before one of them says whose it is next.
    tl.debug_barrier()
    tl.store(turns + program, 1 - turn)
