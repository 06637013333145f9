"""Attention on the GPU: Triton kernels on queries, keys and values where they lie, and PyTorch's operators."""

from collections.abc import Callable

from ..attention_common import gpu_hopper
from ..attention_common.gpu import Attend, Longest, bind_masked, bind_plain
from ..attention_common.gpu_choice import needs_masks, on_the_gpu, refusal
from ..attention_common.layouts import heads_of, is_packed
from ..call import Bound, Call, Kernel, Result, Tensors
from ..kernel_checks import rank_known
from . import cpu
from .problem import problem_of
from .rules import parts_of

_PRESENT_KEY, _PRESENT_VALUE, _SCORES = 1, 2, 3
_PAST, _KEY_LENGTHS, _CU_KV, _MAX_Q, _MAX_KV = 5, 7, 9, 10, 11


def _supports(call: Call) -> str | None:
    for index, name in enumerate(("query", "key", "value")):
        unknown = rank_known(call.input(index), name)
        if unknown is not None:
            return unknown
    layout = call.attributes["layout"]
    if call.wants(_SCORES):
        return "the output 'scores' is wanted; the kernel keeps none"
    if is_packed(layout) and (call.wants(_PRESENT_KEY) or call.wants(_PRESENT_VALUE)):
        return f"layout {layout!r} is packed, where presents have sizes that only the run knows"
    query, _, value = parts_of(call.inputs, call.attributes)
    return refusal(call, (query.size, value.size))


def _needs_masks(call: Call) -> str | None:
    query, key, _ = parts_of(call.inputs, call.attributes)
    # A window may end before the first key where queries outnumber keys; a past stands before all of them.
    beyond = call.attributes["window_left"] >= 0 and call.input(_PAST) is None and query.length != key.length
    may_be_empty = beyond or call.input(_KEY_LENGTHS) is not None or call.input(_CU_KV) is not None
    return needs_masks(call, call.input(3), call.input(4), may_be_empty)


def _plain_supports(call: Call) -> str | None:
    return _supports(call) or _needs_masks(call)


def _hopper_supports(call: Call) -> str | None:
    refused = _plain_supports(call)
    if refused is not None:
        return refused
    query, _, value = parts_of(call.inputs, call.attributes)
    return gpu_hopper.refusal(call, query.size, value.size)


def _masked_supports(call: Call) -> str | None:
    plain = "0 of its inputs are masks or biases, it has no soft cap and no empty rows; triton.attention does with less"
    return _supports(call) or (None if _needs_masks(call) else plain)


def _bind(prepare: Callable[[Call], Attend]) -> Callable[[Call], Bound]:
    """Makes a bind of a kernel that fills the context; presents are copied."""

    def bind(call: Call) -> Bound:
        attend = prepare(call)
        attributes, layout = call.attributes, call.attributes["layout"]
        packed = is_packed(layout)

        def run(inputs: Tensors, out: Tensors | None = None) -> Result:
            assert out is not None
            context, present_key, present_value, _ = out
            assert context is not None
            problem = problem_of(inputs, attributes)
            longest = Longest(problem.query.shape[1], problem.key.shape[1])
            if packed:
                most, most_keys = inputs[_MAX_Q], inputs[_MAX_KV]
                assert most is not None
                longest = Longest(int(most), int(most if most_keys is None else most_keys))
            attend(problem, heads_of(context, layout, problem.query.shape[-2]), longest)
            for place, x in ((present_key, problem.key), (present_value, problem.value)):
                if place is not None:
                    place.copy_(x.transpose(1, 2))
            return context, present_key, present_value, None

        return run

    return bind


KERNELS = (
    Kernel("hopper.attention", "cuda", _hopper_supports, _bind(gpu_hopper.bind_hopper), writes_out=True),
    Kernel("triton.attention", "cuda", _plain_supports, _bind(bind_plain), writes_out=True),
    Kernel("triton.masked_attention", "cuda", _masked_supports, _bind(bind_masked), writes_out=True),
    *(on_the_gpu(kernel) for kernel in cpu.KERNELS if kernel.name.startswith("torch.")),
)
