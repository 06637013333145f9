"""Linear on the CPU: oneDNN with prepacked weights, and plain torch writing into the arena."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...graph.dims import text
from ..call import Bound, Call, Kernel
from ..kernel_checks import dtypes_are, rank_known
from ..native_kernel import even, even_or_none

# How `mkldnn::_linear_pointwise` names activations: (attribute, algorithm).
_ONEDNN = {
    "none": ("none", ""),
    "relu": ("relu", ""),
    "gelu_erf": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "silu": ("swish", ""),
}
# In-place activations for results that are already in their place.
_IN_PLACE: dict[str, Callable[[torch.Tensor], Any]] = {
    "relu": torch.relu_,
    "gelu_erf": lambda t: torch.ops.aten.gelu_.default(t),
    "gelu_tanh": lambda t: torch.ops.aten.gelu_.default(t, approximate="tanh"),
    "silu": lambda t: torch.ops.aten.silu_.default(t),
}


def _onednn_supports(call: Call) -> str | None:
    weight = call.inputs[1]
    assert weight is not None
    reason = dtypes_are(call, ("float32", "bfloat16"))
    if reason is not None:
        return reason
    if not torch.backends.mkldnn.is_available():
        return "this build of torch has no oneDNN"
    if weight.dtype == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "oneDNN has no bfloat16 on this processor (it needs avx512bw, avx512vl and avx512dq)"
    if weight.constant is None:
        return f"the weight {text(weight.shape)} is no constant, so it cannot be packed beforehand"
    if 0 in weight.constant.shape:
        return f"the weight {text(weight.shape)} is empty"
    return None


def _onednn_bind(call: Call) -> Bound:
    x, weight, bias, residual = call.inputs[:4]
    assert x is not None
    assert weight is not None
    assert weight.constant is not None
    lead = x.shape[:-1] if x.shape is not None else (None,)
    tokens = 1
    for dim in lead:
        tokens = tokens * dim if isinstance(dim, int) else 0
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.constant.detach(), tokens or None)
    multiply = torch.ops.mkldnn._linear_pointwise.default
    attribute, algorithm = _ONEDNN[call.attributes["activation"]]
    # oneDNN reads operands as if they were contiguous.
    constant_bias = bias is None or bias.constant is not None
    kept = even_or_none(bias.constant) if bias is not None else None

    def plain(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        b = kept if constant_bias else even(inputs[2])
        return multiply(even(inputs[0]), packed, b, attribute, [], algorithm)

    # The fused addition of oneDNN is slower than a separate one (measured), so the residual is added afterwards.
    def with_residual(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        b = kept if constant_bias else even(inputs[2])
        return multiply(even(inputs[0]), packed, b, attribute, [], algorithm).add_(inputs[3])

    return plain if residual is None else with_residual


def _torch_supports(call: Call) -> str | None:
    return dtypes_are(call, ("float32", "float16", "bfloat16")) or rank_known(call.inputs[0], "x")


def _torch_bind(call: Call) -> Bound:
    x, weight, bias, residual = call.inputs[:4]
    assert x is not None
    assert weight is not None
    turned = weight.constant.detach().t() if weight.constant is not None else None
    activate = _IN_PLACE.get(call.attributes["activation"])
    has_bias, has_residual = bias is not None, residual is not None

    def rows(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        w = turned if turned is not None else inputs[1].t()
        place = None if out is None else out[0]
        y = torch.addmm(inputs[2], inputs[0], w, out=place) if has_bias else torch.mm(inputs[0], w, out=place)
        if activate is not None:
            activate(y)
        if has_residual:
            y.add_(inputs[3])
        return y

    def any_rank(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, w, bias, residual = inputs[:4]
        shape = (*x.shape[:-1], w.shape[0])
        y = torch.empty(shape, dtype=x.dtype) if out is None else out[0]
        flat_residual = residual.reshape(-1, shape[-1]) if has_residual else None
        rows((x.reshape(-1, x.shape[-1]), w, bias, flat_residual), (y.view(-1, shape[-1]),))
        return y

    return rows if x.rank == 2 else any_rank


KERNELS = (
    Kernel("onednn.linear", "cpu", _onednn_supports, _onednn_bind),
    Kernel("torch.linear", "cpu", _torch_supports, _torch_bind, writes_out=True),
)
