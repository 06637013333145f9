"""QuantQKVToContext on the GPU: Triton kernels straight from the projection, padded and packed, and one for Hopper."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..attention_common.gpu import Sizes, bounds_of, last_to_last, operands_of, positional, positions_of
from ..attention_common.gpu_choice import Tile, needs_masks, refusal
from ..attention_common.layouts import CONTEXT_OF, heads_of, is_packed
from ..call import Bound, Call, Kernel, Result, Tensors
from ..eight_bits import KINDS
from ..gpu_launch import FP8_CAPABILITY, blocks, compute_capability, may_overlap
from ..kernel_checks import rank_known
from ..native_kernel import even_or_none
from ..qkv_to_context.problem import problem_of
from ..qkv_to_context.rules import sizes_of
from .cpu import MOST_KEYS
from .gpu_fp8_teams import bind_teams, teams_refusal
from .rules import CONTEXT_SCALE, QKV_SCALE

_FEWEST = 32  # the matrix units take that many bytes along K at least
_SHORT = 16


def _supports(call: Call) -> str | None:
    """What neither Triton kernel takes."""
    qkv = call.inputs[0]
    assert qkv is not None
    unknown = rank_known(qkv, "qkv")
    if unknown is not None:
        return unknown
    sizes = sizes_of(qkv, call.input(4), call.attributes)
    length = sizes["T"] if is_packed(call.attributes["layout"]) else sizes["S"]
    if isinstance(length, int) and length > MOST_KEYS:
        return f"{length} keys: their products of bytes leave 32 bits; the kernel sums {MOST_KEYS}"
    return refusal(call, (sizes["D"],)) or needs_masks(
        call, call.input(2), call.input(3), may_be_empty=call.input(1) is not None
    )


def _bytes_supports(call: Call) -> str | None:
    kind = call.attributes["eight_bits"]
    return f"eight_bits is {kind!r}; the kernel multiplies bytes" if kind != "int8" else _supports(call)


def _fp8_supports(call: Call) -> str | None:
    kind, found = call.attributes["eight_bits"], compute_capability(call)
    if kind == "int8":
        return f"eight_bits is {kind!r}; the kernel multiplies 8-bit floats"
    if 0 < found < FP8_CAPABILITY:
        return f"the device is sm_{found}; 8-bit floats need sm_{FP8_CAPABILITY} or newer"
    return _supports(call)


def tile_for(size: int, queries: int) -> Tile:
    """Tile sizes for heads of `size` and sequences of up to `queries`."""
    return Tile(_SHORT if queries <= _SHORT else 64, 64 if size <= 128 else 32, 4, 3 if size <= 64 else 2)


@dataclass(frozen=True)
class _Launch:
    """What both kernels are told, in the order of their parameters: `before` are the operands up to the strides, then
    scales, `sizes` and `flags`."""

    grid: tuple[int]
    before: tuple[Any, ...]
    scales: tuple[torch.Tensor | None, torch.Tensor | None]
    sizes: tuple[Any, ...]
    flags: tuple[bool, ...]
    options: dict[str, Any]


def _launches(call: Call) -> Callable[[Tensors, torch.Tensor], _Launch]:
    """Prepares launches that write a context, which is not empty."""
    attributes, qkv, overlap = call.attributes, call.inputs[0], may_overlap(call)
    assert qkv is not None
    layout, heads = CONTEXT_OF[attributes["layout"]], attributes["num_heads"]
    packed, stored, scale = is_packed(attributes["layout"]), qkv.dtype in KINDS, call.input(QKV_SCALE)
    given = (stored, scale is not None, scale is not None and scale.shape == (3,))

    def prepare(inputs: Tensors, out: torch.Tensor) -> _Launch:
        problem = problem_of(inputs[:7], attributes)
        length = int(inputs[5]) if packed and inputs[5] is not None else problem.query.shape[1]
        sizes = Sizes.of(problem)
        tile = tile_for(sizes.size, length)
        tiles = blocks(length, tile.queries)
        operands, strides = operands_of(problem, heads_of(out, layout, heads))
        places = positions_of(problem)
        return _Launch(
            (tiles * sizes.heads * sizes.batch,),
            (*operands, *bounds_of(problem), tiles, length, length, *places, problem.rule.scale, *strides),
            (even_or_none(inputs[QKV_SCALE]), inputs[CONTEXT_SCALE]),
            (sizes.heads, sizes.groups, sizes.size, max(sizes.block, _FEWEST), tile.queries, tile.keys),
            (positional(problem), last_to_last(problem), *given),
            {"num_warps": tile.warps, "num_stages": tile.stages, "launch_pdl": overlap},
        )

    return prepare


def _bind_bytes(call: Call) -> Bound:
    from .gpu_kernel import quant_attention_tiles

    prepare, overlap, step = _launches(call), may_overlap(call), call.attributes["dq_probs"]
    bounded = bool(step and call.input(QKV_SCALE) is not None and call.attributes["use_int8_scale_max"])

    def run(inputs: Tensors, out: Tensors | None = None) -> Result:
        assert out is not None and out[0] is not None
        if out[0].numel():
            one = prepare(inputs, out[0])
            quant_attention_tiles[one.grid](
                *one.before, *one.scales, step, *one.sizes, *one.flags, step > 0, bounded, overlap, **one.options
            )
        return out[0]

    return run


def _bind_fp8(call: Call) -> Bound:
    from .gpu_fp8_kernel import fp8_attention_tiles

    prepare, overlap = _launches(call), may_overlap(call)

    def run(inputs: Tensors, out: Tensors | None = None) -> Result:
        assert out is not None and out[0] is not None
        if out[0].numel():
            one = prepare(inputs, out[0])
            fp8_attention_tiles[one.grid](*one.before, *one.scales, *one.sizes, *one.flags, overlap, **one.options)
        return out[0]

    return run


def _teams_supports(call: Call) -> str | None:
    return _fp8_supports(call) or teams_refusal(call)


def _bind_teams(call: Call) -> Bound:
    attempt, otherwise = bind_teams(call), _bind_fp8(call)

    def run(inputs: Tensors, out: Tensors | None = None) -> Result:
        assert out is not None and out[0] is not None
        if out[0].numel() and attempt(inputs, out[0]):
            return out[0]
        return otherwise(inputs, out)

    return run


KERNELS = (
    Kernel("hopper.fp8_attention", "cuda", _teams_supports, _bind_teams, writes_out=True),
    Kernel("triton.quant_attention", "cuda", _bytes_supports, _bind_bytes, writes_out=True),
    Kernel("triton.fp8_attention", "cuda", _fp8_supports, _bind_fp8, writes_out=True),
)
