"""Attention on the CPU: our own kernel, and PyTorch's operators."""

from collections.abc import Callable

import torch

from ..attention_common import native_kernel
from ..attention_common.layouts import from_heads, heads_of, is_packed
from ..attention_common.problem import Problem
from ..attention_common.torch_kernels import fused, two_products
from ..call import Bound, Call, Kernel, Result, Tensors
from ..kernel_checks import rank_known
from .problem import problem_of
from .rules import parts_of

_PRESENT_KEY, _PRESENT_VALUE, _SCORES = 1, 2, 3
Compute = Callable[[Problem, torch.Tensor, torch.Tensor | None], None]


def _common(call: Call) -> str | None:
    """What no kernel but the reference does."""
    for index, name in enumerate(("query", "key", "value")):
        unknown = rank_known(call.input(index), name)
        if unknown is not None:
            return unknown
    layout = call.attributes["layout"]
    extras = [i for i in (_PRESENT_KEY, _PRESENT_VALUE, _SCORES) if call.wants(i)]
    if is_packed(layout) and extras:
        return f"layout {layout!r} is packed, where scores and presents have sizes that only the run knows"
    return None


def _native_supports(call: Call) -> str | None:
    unknown = _common(call)
    if unknown is not None:
        return unknown
    if call.wants(_SCORES):
        return "the output 'scores' is wanted; the kernel keeps none"
    query, _, value = parts_of(call.inputs, call.attributes)
    packed = is_packed(call.attributes["layout"])
    # Fewer keys than queries leave the first queries of causal attention without any.
    self_attention = call.input(9) is None
    sizes = (query.size, value.size)
    return native_kernel.refusal(call, sizes, call.input(3), call.input(4), packed, self_attention)


def _fused_supports(call: Call) -> str | None:
    if call.attributes["softcap"]:
        return f"softcap is {call.attributes['softcap']}; scaled_dot_product_attention has none"
    if call.wants(_SCORES):
        return "the output 'scores' is wanted; scaled_dot_product_attention keeps none"
    return _common(call)


def _products_supports(call: Call) -> str | None:
    mode = call.attributes["scores_mode"]
    if call.wants(_SCORES) and mode != "masked":
        return f"the output 'scores' is wanted as {mode!r}; the kernel keeps the masked ones"
    return _common(call)


def _fused_bind(call: Call) -> Bound:
    attributes, layout = call.attributes, call.attributes["layout"]
    wants = (call.wants(_PRESENT_KEY), call.wants(_PRESENT_VALUE))

    def run(inputs: Tensors, out: Tensors | None = None) -> Result:
        problem = problem_of(inputs, attributes)
        present = [
            x.transpose(1, 2).contiguous() if wanted else None
            for x, wanted in zip((problem.key, problem.value), wants, strict=True)
        ]
        return from_heads(fused(problem), layout).contiguous(), *present, None

    return run


def _writing(compute: Compute) -> Callable[[Call], Bound]:
    """Makes a bind of a computation that writes the context into a view `[B, S, N, Dv]` of its place."""

    def bind(call: Call) -> Bound:
        attributes, layout = call.attributes, call.attributes["layout"]

        def run(inputs: Tensors, out: Tensors | None = None) -> Result:
            assert out is not None
            context, present_key, present_value, scores = out
            assert context is not None
            problem = problem_of(inputs, attributes)
            compute(problem, heads_of(context, layout, attributes["num_heads"]), scores)
            for place, x in ((present_key, problem.key), (present_value, problem.value)):
                if place is not None:
                    place.copy_(x.transpose(1, 2))
            return context, present_key, present_value, scores

        return run

    return bind


KERNELS = (
    Kernel(
        "native.attention",
        "cpu",
        _native_supports,
        _writing(lambda problem, out, scores: native_kernel.run(problem, out)),
        writes_out=True,
    ),
    Kernel("torch.sdpa", "cpu", _fused_supports, _fused_bind),
    Kernel("torch.bmm", "cpu", _products_supports, _writing(two_products), writes_out=True),
)
