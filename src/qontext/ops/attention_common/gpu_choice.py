"""Which GPU attention kernel takes a call, why it refuses, and the tile sizes it runs with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...graph.dims import AnyDim
from ..call import Call, Kernel, Operand
from ..gpu_launch import compute_capability, power_of_2, triton_is_here
from .layouts import is_packed

LARGEST_HEAD = 256
_LONG = 256  # queries a sequence from which tiles of 128 pay
OLDEST = 80  # compute capability: bfloat16 matrix units and asynchronous copies came with it


@dataclass(frozen=True)
class Tile:
    """Queries and keys of a tile, warps of a program, tiles in flight, and whether unmasked keys get their own loop."""

    queries: int
    keys: int
    warps: int
    stages: int
    peel: bool = True


def refusal(call: Call, head_sizes: Sequence[AnyDim]) -> str | None:
    """What no GPU kernel of ours takes; None when there is nothing.

    Args:
        head_sizes: D and Dv.
    """
    found = compute_capability(call)
    if 0 < found < OLDEST:
        return f"the device is sm_{found}; the kernel needs sm_{OLDEST} or newer"
    for size in head_sizes:
        if not isinstance(size, int) or not 1 <= size <= LARGEST_HEAD:
            return f"the head size is {'unknown' if size is None else size}; the kernel takes 1 to {LARGEST_HEAD}"
    return triton_is_here()


def needs_masks(call: Call, mask: Operand | None, bias: Operand | None, may_be_empty: bool) -> str | None:
    """Why a call needs the kernel with masks; None when counts, kind and window are all there is.

    Args:
        may_be_empty: counts or lengths may leave a query without a key.
    """
    attributes = call.attributes
    given = [name for name, x in (("mask", mask), ("bias", bias)) if x is not None]
    if given:
        return f"input {given[0]!r} is given; the kernel hides keys by counts and positions alone"
    if attributes["softcap"]:
        return f"softcap is {attributes['softcap']}; the kernel has none"
    if may_be_empty and attributes["empty_row"] != "zeros":
        return f"empty_row is {attributes['empty_row']!r} and rows may be empty; the kernel gives them zeros"
    return None


def on_the_gpu(kernel: Kernel) -> Kernel:
    """A kernel of PyTorch's operators for CUDA tensors. Packed sequences are refused: it would read their boundaries
    back from the device."""

    def supports(call: Call) -> str | None:
        layout = call.attributes["layout"]
        if is_packed(layout):
            return f"layout {layout!r} is packed; the kernel would wait for the device to read lengths"
        return kernel.supports(call)

    return replace(kernel, name=f"{kernel.name}_cuda", device="cuda", supports=supports)


def block_of(size: int) -> int:
    """The tile axis that covers a head: the matrix units take 16 at least."""
    return max(power_of_2(size), 16)


def plain_tile(size: int, itemsize: int, queries: int, mean: int) -> Tile:
    """Tile sizes of the kernel without masks; those for halves and heads of up to 64 are the fastest of
    `bench/gpu_attention.py --tiles` on an H200.

    Args:
        size: the head size, rounded up by `block_of`.
        itemsize: bytes an element.
        queries: most of them in a sequence.
        mean: queries of a sequence on average: tiles of 128 waste much on short ones.
    """
    if itemsize == 4:
        return Tile(64, 32, 4, 1) if size <= 64 else Tile(32, 32, 4, 1) if size <= 128 else Tile(16, 32, 4, 1)
    if size > 128:
        return Tile(64, 32, 4, 2) if queries <= 64 else Tile(128, 64, 8, 2)
    if size > 64:
        return Tile(64, 64, 4, 2) if queries <= 64 else Tile(128, 64, 8, 3)
    if queries <= 16:
        return Tile(16, 64, 4, 3)
    return Tile(64, 32, 4, 3, peel=False) if mean < _LONG else Tile(128, 64, 8, 3)


def masked_tile(size: int, itemsize: int, queries: int) -> Tile:
    """Tile sizes of the kernel with masks, from the same numbers."""
    if itemsize == 4 or size > 128:
        return Tile(16 if size > 128 else 32, 32, 4, 1)
    return Tile(16 if queries <= 16 else 64, 64 if size <= 64 else 32, 4, 2)
