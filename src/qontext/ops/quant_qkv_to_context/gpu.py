"""QuantQKVToContext on the GPU: a Triton kernel straight from the projection, padded and packed."""

from ..attention_common.gpu import Sizes, bounds_of, last_to_last, operands_of, positional, positions_of
from ..attention_common.gpu_choice import Tile, needs_masks, refusal
from ..attention_common.layouts import CONTEXT_OF, heads_of, is_packed
from ..call import Bound, Call, Kernel, Result, Tensors
from ..gpu_launch import blocks, may_overlap
from ..kernel_checks import rank_known
from ..native_kernel import even_or_none
from ..qkv_to_context.problem import problem_of
from ..qkv_to_context.rules import sizes_of
from .cpu import MOST_KEYS
from .rules import CONTEXT_SCALE, QKV_SCALE

_FEWEST = 32  # the matrix units take that many bytes along K at least
_SHORT = 16


def _supports(call: Call) -> str | None:
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


def tile_for(size: int, queries: int) -> Tile:
    """Tile sizes for heads of `size` and sequences of up to `queries`."""
    return Tile(_SHORT if queries <= _SHORT else 64, 64 if size <= 128 else 32, 4, 3 if size <= 64 else 2)


def _bind(call: Call) -> Bound:
    from .gpu_kernel import quant_attention_tiles

    attributes, qkv, overlap = call.attributes, call.inputs[0], may_overlap(call)
    assert qkv is not None
    layout, heads = CONTEXT_OF[attributes["layout"]], attributes["num_heads"]
    packed, stored, step = is_packed(attributes["layout"]), qkv.dtype == "int8", attributes["dq_probs"]
    scale = call.input(QKV_SCALE)
    found, three = scale is not None, scale is not None and scale.shape == (3,)
    bounded = bool(step and found and attributes["use_int8_scale_max"])

    def run(inputs: Tensors, out: Tensors | None = None) -> Result:
        assert out is not None and out[0] is not None
        context = heads_of(out[0], layout, heads)
        if context.numel() == 0:
            return out[0]
        problem = problem_of(inputs[:7], attributes)
        length = int(inputs[5]) if packed and inputs[5] is not None else problem.query.shape[1]
        sizes = Sizes.of(problem)
        tile = tile_for(sizes.size, length)
        tiles = blocks(length, tile.queries)
        operands, strides = operands_of(problem, context)
        quant_attention_tiles[(tiles * sizes.heads * sizes.batch,)](
            *operands, *bounds_of(problem), tiles, length, length, *positions_of(problem), problem.rule.scale, *strides,
            even_or_none(inputs[QKV_SCALE]), inputs[CONTEXT_SCALE], step, sizes.heads, sizes.groups, sizes.size,
            max(sizes.block, _FEWEST), tile.queries, tile.keys, positional(problem), last_to_last(problem), stored,
            found, three, step > 0, bounded, overlap,
            num_warps=tile.warps, num_stages=tile.stages, launch_pdl=overlap,
        )  # fmt: skip
        return out[0]

    return run


KERNELS = (Kernel("triton.quant_attention", "cuda", _supports, _bind, writes_out=True),)
