"""Launching the Hopper kernel of attention in float8_e4m3 (`gpu_fp8_teams_kernel.py`)."""

from collections.abc import Callable

import torch

from ..attention_common.gpu import LOG2E, Longest, Sizes
from ..attention_common.gpu_teams import HEAD_SIZES, listed_units, map_of, rows_of
from ..attention_common.layouts import CONTEXT_OF, heads_of, is_packed
from ..call import Call, Tensors
from ..eight_bits import KINDS
from ..gpu_launch import may_overlap, not_hopper
from ..qkv_to_context.problem import problem_of
from ..qkv_to_context.rules import sizes_of
from .rules import CONTEXT_SCALE, QKV_SCALE

_RING = 3  # 2 ** 3 tiles of keys, of values and of values turned round: 96 KB for heads of 64

# (inputs, context): fills the context; False, and nothing done, for operands that tensor maps cannot describe.
Attempt = Callable[[Tensors, torch.Tensor], bool]


def teams_refusal(call: Call) -> str | None:
    """What the kernel does not take, beyond what `gpu.py` asks of all."""
    qkv, attributes, refused = call.inputs[0], call.attributes, not_hopper(call)
    assert qkv is not None
    if refused is not None:
        return refused
    size = sizes_of(qkv, call.input(4), attributes)["D"]
    if size not in HEAD_SIZES:
        return f"the head size is {size}; the kernel takes {' and '.join(map(str, HEAD_SIZES))}"
    if qkv.dtype not in KINDS:
        return f"qkv is {qkv.dtype}; the kernel reads eight bits that the projection has written"
    if attributes["kind"] != "full":
        return f"kind is {attributes['kind']!r}; the kernel takes 'full'"
    windows = (attributes["window_left"], attributes["window_right"])
    if max(windows) >= 0:
        return f"the window is {windows}; the kernel has none"
    for name, place in (("qkv_scale", QKV_SCALE), ("context_scale", CONTEXT_SCALE)):
        scale = call.input(place)
        if scale is None or scale.constant is None:
            return f"{name} is {'not given' if scale is None else 'no constant'}; the kernel takes a constant"
    return None


def bind_teams(call: Call) -> Attempt:
    """The kernel, for calls that `teams_refusal` says nothing of."""
    from .gpu_fp8_teams_kernel import fp8_attention_by_teams

    attributes, overlap = call.attributes, may_overlap(call)
    layout, heads, packed = CONTEXT_OF[attributes["layout"]], attributes["num_heads"], is_packed(attributes["layout"])
    given = [call.input(place) for place in (QKV_SCALE, CONTEXT_SCALE)]
    qkv_scale, context_scale = (None if o is None else o.constant for o in given)
    assert qkv_scale is not None
    assert context_scale is not None
    q_scale, k_scale, v_scale = qkv_scale.double().expand(3).tolist()
    logits, values = q_scale * k_scale * LOG2E, v_scale / float(context_scale)

    def run(inputs: Tensors, out: torch.Tensor) -> bool:
        problem = problem_of(inputs[:7], attributes)
        rows = rows_of(problem, heads_of(out, layout, heads))
        if rows is None or problem.key.numel() == 0:
            return False
        length = int(inputs[5]) if packed and inputs[5] is not None else problem.query.shape[1]
        sizes = Sizes.of(problem)
        table, programs = listed_units(problem, sizes, Longest(length, length), out.device, overlap)
        fp8_attention_by_teams[(programs,)](
            *(map_of(x) for x in rows), table, problem.rule.scale * logits, values, *(x.stride(1) for x in rows),
            sizes.heads, sizes.groups, sizes.size, _RING, overlap, num_warps=4, launch_pdl=overlap,
        )  # fmt: skip
        return True

    return run
