"""QuantLinear for many rows on Hopper: two teams of warps take turns, one's result beside the other's product.

The kernel is written in Gluon (`gpu_hopper_kernel.py`), which Triton's interpreter does not run.
"""

import torch

from ..call import Bound, Call, Kernel
from ..gluon_maps import map_of
from ..gpu_launch import blocks, may_overlap, not_hopper
from ..linear.gpu_persistent import multiprocessors
from ..linear.gpu_rows import aligned, least_rows
from .gpu_rows import Ready, multiples, not_float32, over_rows, ready, takes

_LEAST_ROWS = 256  # below, there is not a tile for each team
_TILE, _DEPTH = 128, 128
_STAGES = 5
_MOST_STAGES, _LEAST_STAGES = 6, 4  # beside weights that stay in shared memory
_ROOM = 224 << 10  # bytes of shared memory for operands and results


def supports(call: Call) -> str | None:
    """Whether the kernel suits the call, or the number that does not."""
    reason = takes(call)
    if reason is not None:
        return reason
    reason = not_hopper(call)
    if reason is not None:
        return reason
    return not_float32(call) or multiples(call, 16) or least_rows(call, _LEAST_ROWS)


def short_gelu(call: Call, made: Ready) -> bool:
    """Whether the result is the exact GELU in e4m3 and nothing else, for which the kernel has a form of its own."""
    y, attributes = call.outputs[0], call.attributes
    alone = made.y_factor is None and call.inputs[4] is None
    return alone and attributes["activation"] == "gelu_erf" and y is not None and y.dtype == "float8_e4m3"


def stages_for(k: int, gelu: bool) -> tuple[int, bool]:
    """Buffers of the ring, and whether the weights of a column of tiles stay in shared memory beside it.

    They do where few steps along K leave room and the epilogue is long (`gelu`: that of `short_gelu`): half of the
    copies are spared. Results in halves would leave too short a ring.
    """
    left = (_ROOM - 2 * _TILE * _TILE) // (_TILE * _DEPTH) - blocks(k, _DEPTH)
    if not gelu or left < _LEAST_STAGES:
        return _STAGES, False
    return min(left, _MOST_STAGES), True


def bind(call: Call) -> Bound:
    """QuantLinear by this kernel for any number of rows."""
    from .gpu_hopper_kernel import quant_alternating

    made, kind, overlap = ready(call), call.attributes["activation"], may_overlap(call)
    short = short_gelu(call, made)
    stages, resident = stages_for(made.k, short)
    weight = aligned(made.weight)
    operand, block = [_TILE, _DEPTH], [_TILE, _TILE]

    def compute(
        x: torch.Tensor,
        row_scale: torch.Tensor | None,
        row_zero: torch.Tensor | None,
        residual: torch.Tensor | None,
        y: torch.Tensor,
    ) -> None:
        target = y if y.data_ptr() % 16 == 0 else torch.empty_like(y)
        programs = min(multiprocessors(x.device.index), blocks(len(x), _TILE) * blocks(made.n, _TILE))
        quant_alternating[(programs,)](
            map_of(aligned(x), operand), map_of(weight, operand), map_of(target, block),
            made.scales, made.columns, made.shift, row_scale, row_zero, residual, *made.tail, len(x), programs,
            made.n, made.k, stages, kind, resident, short, overlap, num_warps=4, launch_pdl=overlap,
        )  # fmt: skip
        if target is not y:
            y.copy_(target)

    return over_rows(call, made, compute)


KERNELS = (Kernel("gluon.quant_linear", "cuda", supports, bind, writes_out=True),)
