"""QKVToContext on the CPU: our own kernel, and PyTorch's operators."""

from collections.abc import Callable
from typing import Any

import torch

from ... import native
from ..attention_common import native_kernel
from ..attention_common.layouts import CONTEXT_OF, from_heads, heads_of, is_packed
from ..attention_common.problem import kv_heads
from ..attention_common.torch_kernels import fused, two_products
from ..call import Bound, Call, Kernel, Result, Tensors
from ..eight_bits import NONE
from ..kernel_checks import rank_known
from .problem import problem_of
from .rules import sizes_of

_SCORES, _VALUES = 1, 2


def _packed_extras(call: Call) -> str | None:
    layout = call.attributes["layout"]
    if is_packed(layout) and (call.wants(_SCORES) or call.wants(_VALUES)):
        return f"layout {layout!r} is packed, where scores and values have sizes that only the run knows"
    return None


def _native_supports(call: Call) -> str | None:
    qkv = call.inputs[0]
    assert qkv is not None
    if call.wants(_SCORES):
        return "the output 'scores' is wanted; the kernel keeps none"
    unknown = rank_known(qkv, "qkv") or _packed_extras(call)
    if unknown is not None:
        return unknown
    size = sizes_of(qkv, call.input(4), call.attributes)["D"]
    packed = is_packed(call.attributes["layout"])
    return native_kernel.refusal(call, (size, size), call.input(2), call.input(3), packed, self_attention=True)


def _native_bind(call: Call) -> Bound:
    attributes, wants_values = call.attributes, call.wants(_VALUES)
    layout, heads = CONTEXT_OF[attributes["layout"]], attributes["num_heads"]
    straight = _straight(call)

    def run(inputs: Tensors, out: Tensors | None = None) -> Result:
        assert out is not None
        context, _, values = out
        assert context is not None
        if straight is not None:
            straight(inputs, context)
        if straight is None or wants_values:
            problem = problem_of(inputs, attributes)
            if straight is None:
                native_kernel.run(problem, heads_of(context, layout, heads))
            if values is not None:
                values.copy_(problem.value.transpose(1, 2))
        return context, None, values

    return run


def _straight(call: Call) -> Callable[[Tensors, torch.Tensor], None] | None:
    """The short way for what encoders do most: no masks, or lengths alone, and as many key as query heads.

    It spares the views and the mask bookkeeping of the general way, 20 us a call.
    """
    attributes = call.attributes
    heads, full_layout = attributes["num_heads"], attributes["layout"]
    lengths, mask, bias, prefix = call.input(1), call.input(2), call.input(3), call.input(6)
    opened = attributes["empty_row"] == "as_unmasked" and lengths is not None
    if kv_heads(attributes) != heads or not (mask is bias is prefix is None) or (opened and _positional(attributes)):
        return None
    layout = full_layout.removesuffix(" 1 1") if "(" in full_layout else f"B S ({full_layout.removeprefix('B S ')})"
    rows = 1 if layout.startswith("T") else 2
    fixed: dict[str, Any] = {
        "scale": attributes["scale"] or None,
        "causal": attributes["kind"] == "causal",
        "offset": 0,
        "window": (attributes["window_left"], attributes["window_right"]),
        "softcap": attributes["softcap"],
        "empty_row": "uniform" if attributes["empty_row"] == "uniform" else "zeros",
    }

    def run(inputs: Tensors, context: torch.Tensor) -> None:
        qkv, counts = inputs[0], native_kernel.int32(inputs[1])
        assert qkv is not None
        flat = qkv.contiguous().flatten(rows)
        if opened and counts is not None:
            # A sequence without a valid key attends to all of them, as if it had no mask.
            counts = counts.masked_fill(counts == 0, flat.shape[0 if layout.startswith("S") else 1])
        native.attention_fused(
            flat, layout, heads, out=context, cu_seqlens=native_kernel.int32(inputs[4]), kv_counts=counts, **fixed
        )

    return run


def _replays(call: Call) -> bool:
    """The short way, with nothing to convert or to count."""
    lengths, boundaries = call.input(1), call.input(4)
    return (
        lengths is None
        and (boundaries is None or boundaries.dtype == "int32")
        and not call.wants(_VALUES)
        and _straight(call) is not None
    )


def _positional(attributes: Any) -> bool:
    """Masks by position are in force too."""
    return attributes["kind"] != "full" or attributes["window_left"] >= 0 or attributes["window_right"] >= 0


def _fused_supports(call: Call) -> str | None:
    if call.attributes["softcap"]:
        return f"softcap is {call.attributes['softcap']}; scaled_dot_product_attention has none"
    if call.wants(_SCORES):
        return "the output 'scores' is wanted; scaled_dot_product_attention keeps none"
    return rank_known(call.input(0), "qkv") or _packed_extras(call)


def _fused_bind(call: Call) -> Bound:
    attributes, wants_values = call.attributes, call.wants(_VALUES)
    layout = CONTEXT_OF[attributes["layout"]]

    def run(inputs: Tensors, out: Tensors | None = None) -> Result:
        problem = problem_of(inputs, attributes)
        values = problem.value.transpose(1, 2).contiguous() if wants_values else None
        return from_heads(fused(problem), layout).contiguous(), None, values

    return run


def _products_supports(call: Call) -> str | None:
    return rank_known(call.input(0), "qkv") or _packed_extras(call)


def _products_bind(call: Call) -> Bound:
    attributes, wants = call.attributes, (call.wants(_SCORES), call.wants(_VALUES))
    layout, heads = CONTEXT_OF[attributes["layout"]], attributes["num_heads"]

    def run(inputs: Tensors, out: Tensors | None = None) -> Result:
        assert out is not None
        context, scores, values = out
        assert context is not None
        problem = problem_of(inputs, attributes)
        two_products(problem, heads_of(context, layout, heads), scores if wants[0] else None)
        if wants[1]:
            assert values is not None
            values.copy_(problem.value.transpose(1, 2))
        return context, scores, values

    return run


def _in_floats(supports: Callable[[Call], str | None]) -> Callable[[Call], str | None]:
    """The same, for kernels that write no eight bits."""

    def asked(call: Call) -> str | None:
        kind = call.attributes["eight_bits"]
        return supports(call) if kind == NONE else f"the context is wanted in {kind}; the kernel gives floats"

    return asked


KERNELS = (
    Kernel("native.attention", "cpu", _in_floats(_native_supports), _native_bind, writes_out=True, replays=_replays),
    Kernel("torch.sdpa", "cpu", _in_floats(_fused_supports), _fused_bind),
    Kernel("torch.bmm", "cpu", _in_floats(_products_supports), _products_bind, writes_out=True),
)
