"""Linear on the CPU: our own product and vendor libraries with prepacked weights, and plain torch.

Which one is fastest depends on the processor, the shape and the dtype, so the planner times them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...graph.dims import product, text
from ...native import linear as native_linear
from ..call import Bound, Call, Kernel
from ..kernel_checks import dtypes_are, rank_known
from ..native_kernel import dtype_of, even, even_or_none, native_is_here
from .epilogue import NATIVE_KINDS, activation_of

# How `mkldnn::_linear_pointwise` names activations: (attribute, algorithm).
_ONEDNN = {
    "none": ("none", ""),
    "relu": ("relu", ""),
    "gelu_erf": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "silu": ("swish", ""),
}
# Packed weights serve any number of tokens; they are packed for about this many where the number is open.
_USUAL_TOKENS = 512


def _one_dtype(call: Call, allowed: Sequence[str]) -> str | None:
    x, weight = call.inputs[:2]
    assert x is not None
    assert weight is not None
    if weight.dtype != x.dtype:
        return f"the weight is {weight.dtype} and x is {x.dtype}; the kernel multiplies operands of one float dtype"
    return dtypes_are(call, allowed)


def _constant_weight(call: Call) -> str | None:
    weight = call.inputs[1]
    assert weight is not None
    if weight.constant is None:
        return f"the weight {text(weight.shape)} is no constant, so it cannot be packed beforehand"
    if 0 in weight.constant.shape:
        return f"the weight {text(weight.shape)} is empty"
    return None


def _weight_of(call: Call) -> torch.Tensor:
    weight = call.inputs[1]
    assert weight is not None
    assert weight.constant is not None
    return weight.constant.detach()


def _tokens(call: Call) -> int | None:
    """How many rows x has; None when the number is open."""
    x = call.inputs[0]
    assert x is not None
    count = product(x.shape[:-1]) if x.shape is not None else None
    return count if isinstance(count, int) and count > 0 else None


def _native_supports(call: Call) -> str | None:
    reason = _one_dtype(call, ("float32", "bfloat16")) or _constant_weight(call) or native_is_here()
    if reason is not None:
        return reason
    dtype = _weight_of(call).dtype
    if not native_linear.multiplies(dtype):
        return f"the CPU kernel library multiplies no {str(dtype).removeprefix('torch.')} on this processor"
    return None


def _native_bind(call: Call) -> Bound:
    packed = native_linear.shared_weight(even(_weight_of(call)))
    multiply = native_linear.bind_linear(packed, NATIVE_KINDS.get(call.attributes["activation"]))
    features = packed.rows

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x = even(inputs[0])
        y = x.new_empty((*x.shape[:-1], features)) if out is None else out[0]
        multiply(x, even_or_none(inputs[2]), even_or_none(inputs[3]), y)
        return y

    return run


def _onednn_supports(call: Call) -> str | None:
    reason = _one_dtype(call, ("float32", "bfloat16")) or _constant_weight(call)
    if reason is not None:
        return reason
    if not torch.backends.mkldnn.is_available():
        return "this build of torch has no oneDNN"
    if _weight_of(call).dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "oneDNN has no bfloat16 on this processor (it needs avx512bw, avx512vl and avx512dq)"
    return None


def _onednn_bind(call: Call) -> Bound:
    packed = torch.ops.mkldnn._reorder_linear_weight(even(_weight_of(call)), _tokens(call))
    multiply = torch.ops.mkldnn._linear_pointwise.default
    attribute, algorithm = _ONEDNN[call.attributes["activation"]]

    # oneDNN reads operands as if they were contiguous.
    def plain(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        return multiply(even(inputs[0]), packed, even_or_none(inputs[2]), attribute, [], algorithm)

    # The fused addition of oneDNN is slower than a separate one (measured), so the residual is added afterwards.
    def with_residual(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        y = multiply(even(inputs[0]), packed, even_or_none(inputs[2]), attribute, [], algorithm)
        return y.add_(inputs[3])

    return plain if call.inputs[3] is None else with_residual


def _mkl_supports(call: Call) -> str | None:
    reason = _one_dtype(call, ("float32",)) or _constant_weight(call)
    if reason is not None:
        return reason
    return None if torch.backends.mkl.is_available() else "this build of torch has no MKL"


def _mkl_bind(call: Call) -> Bound:
    weight = even(_weight_of(call))
    packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, _tokens(call) or _USUAL_TOKENS)
    multiply, features = torch.ops.mkl._mkl_linear.default, weight.shape[1]
    # An activation takes the bias along in its own pass.
    finish = activation_of(call)
    has_residual = call.inputs[3] is not None

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x = even(inputs[0])
        bias = even_or_none(inputs[2])
        # The number of tokens given here says that the packed weight is to be used.
        y = multiply(x, packed, weight, bias if finish is None else None, x.numel() // features)
        if finish is not None:
            finish(y, bias)
        return y.add_(inputs[3]) if has_residual else y

    return run


def _torch_supports(call: Call) -> str | None:
    return _one_dtype(call, ("float32", "float16", "bfloat16")) or rank_known(call.inputs[0], "x")


# (x [R, K], weight transposed [K, M], bias, residual [R, M], where to write or None) -> y [R, M]
Rows = Callable[[Any, Any, Any, Any, Any], torch.Tensor]


def _rows(call: Call) -> Rows:
    """The product over rows with all that follows it, chosen once."""
    has_bias, has_residual = call.inputs[2] is not None, call.inputs[3] is not None
    finish = activation_of(call)

    def activated(x: Any, w: Any, bias: Any, residual: Any, place: Any) -> torch.Tensor:
        assert finish is not None
        y = torch.mm(x, w, out=place)
        finish(y, bias)
        return y.add_(residual) if has_residual else y

    def accumulated(x: Any, w: Any, bias: Any, residual: Any, place: Any) -> torch.Tensor:
        """Without an activation the product is added to what is there: a pass less over y."""
        if not has_bias:
            return torch.addmm(residual, x, w, out=place)
        y = torch.add(residual, bias, out=place)
        return torch.addmm(y, x, w, out=y)

    def biased(x: Any, w: Any, bias: Any, residual: Any, place: Any) -> torch.Tensor:
        return torch.addmm(bias, x, w, out=place)

    def plain(x: Any, w: Any, bias: Any, residual: Any, place: Any) -> torch.Tensor:
        return torch.mm(x, w, out=place)

    if finish is not None:
        return activated
    return accumulated if has_residual else biased if has_bias else plain


def _torch_bind(call: Call) -> Bound:
    x, weight = call.inputs[:2]
    assert x is not None
    assert weight is not None
    turned = weight.constant.detach().t() if weight.constant is not None else None
    compute = _rows(call)

    def rows(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        w = turned if turned is not None else inputs[1].t()
        return compute(inputs[0], w, inputs[2], inputs[3], None if out is None else out[0])

    def any_rank(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, residual = inputs[0], inputs[3]
        w = turned if turned is not None else inputs[1].t()
        shape = (*x.shape[:-1], w.shape[1])
        y = x.new_empty(shape) if out is None else out[0]
        flat = None if residual is None else residual.reshape(-1, shape[-1])
        compute(x.reshape(-1, x.shape[-1]), w, inputs[2], flat, y.view(-1, shape[-1]))
        return y

    return rows if x.rank == 2 else any_rank


def _int8_supports(call: Call) -> str | None:
    weight, scale = call.inputs[1], call.inputs[5]
    assert weight is not None
    if weight.dtype != "int8" or scale is None:
        return f"the weight is {weight.dtype}; the kernel multiplies floats with int8 weights"
    if scale.constant is None:
        return "weight_scale is no constant"
    x = call.inputs[0]
    assert x is not None
    if x.dtype not in ("float32", "bfloat16"):
        return f"x is {x.dtype}; the kernel takes float32 and bfloat16"
    return _constant_weight(call) or rank_known(x, "x")


def _int8_bind(call: Call) -> Bound:
    """Weights stay in int8 in memory: with few tokens, reading them is most of the time."""
    weight, scale = even(_weight_of(call)), call.inputs[5]
    assert scale is not None and scale.constant is not None
    scales = scale.constant.detach().to(dtype_of(call)).contiguous()
    multiply, features, finish = torch.ops.aten._weight_int8pack_mm.default, weight.shape[0], activation_of(call)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, bias, residual = inputs[0], inputs[2], inputs[3]
        y = multiply(x.reshape(-1, x.shape[-1]).contiguous(), weight, scales).view(*x.shape[:-1], features)
        if finish is not None:
            finish(y, bias)
        elif bias is not None:
            y.add_(bias)
        return y if residual is None else y.add_(residual)

    return run


FLOAT_WEIGHTS = (
    Kernel("native.linear", "cpu", _native_supports, _native_bind, writes_out=True, replays=lambda call: True),
    Kernel("onednn.linear", "cpu", _onednn_supports, _onednn_bind),
    Kernel("mkl.linear", "cpu", _mkl_supports, _mkl_bind),
    Kernel("torch.linear", "cpu", _torch_supports, _torch_bind, writes_out=True),
)
KERNELS = (*FLOAT_WEIGHTS, Kernel("torch.linear_int8_weight", "cpu", _int8_supports, _int8_bind))
