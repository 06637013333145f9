"""Linear through the vendor's library (cuBLASLt), called by torch, which writes where the caller asks.

What the library can do behind its product it does there: the bias, and with it ReLU or the tanh form of GELU. Other
activations, and a residual behind a bias, take one Triton pass over the result in place. float32 is exact as long as
torch's own switch for tf32 is left off, as it is by default.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..call import Bound, Call, Kernel
from ..gpu_activation import bind_finish
from ..gpu_launch import triton_is_here
from ..kernel_checks import dtypes_are, last_axis, rank_known
from ..native_kernel import even, even_or_none

# (x [R, K], weight transposed [K, M], bias, residual [R, M], y [R, M]): fills y.
Rows = Callable[[Any, Any, Any, Any, Any], Any]

_IN_THE_LIBRARY = {"relu": False, "gelu_tanh": True}


def one_float_dtype(call: Call, allowed: Sequence[str]) -> str | None:
    """None when x and the weight are of one of the allowed float dtypes, else what they are."""
    x, weight = call.inputs[:2]
    assert x is not None
    assert weight is not None
    if weight.dtype != x.dtype:
        return f"the weight is {weight.dtype} and x is {x.dtype}; the kernel multiplies operands of one float dtype"
    return dtypes_are(call, allowed)


def _needs_a_pass(call: Call) -> bool:
    activation, has_bias = call.attributes["activation"], call.inputs[2] is not None
    if call.inputs[3] is not None:
        return activation != "none" or has_bias
    return activation != "none" and not (has_bias and activation in _IN_THE_LIBRARY)


def _supports(call: Call) -> str | None:
    weight = call.inputs[1]
    assert weight is not None
    reason = one_float_dtype(call, ("float32", "float16", "bfloat16"))
    reason = reason or rank_known(call.inputs[0], "x") or rank_known(weight, "weight")
    if reason is None and _needs_a_pass(call):
        return triton_is_here() or (None if isinstance((weight.shape or (0,))[0], int) else "M is no number")
    return reason


def _rows(call: Call) -> Rows:
    """The product over rows with all that follows it, chosen once."""
    activation, has_bias, has_residual = (
        call.attributes["activation"],
        call.inputs[2] is not None,
        call.inputs[3] is not None,
    )
    if _needs_a_pass(call):
        assert call.outputs[0] is not None
        finish = bind_finish(call, last_axis(call.outputs[0]), activation)

        def finished(x: Any, w: Any, bias: Any, residual: Any, y: Any) -> None:
            torch.mm(x, w, out=y)
            finish(y, bias, residual, y)

        return finished
    if activation != "none":
        use_gelu = _IN_THE_LIBRARY[activation]
        return lambda x, w, bias, residual, y: torch.ops.aten._addmm_activation.out(
            bias, x, w, use_gelu=use_gelu, out=y
        )
    if has_residual:
        return lambda x, w, bias, residual, y: torch.addmm(residual, x, w, out=y)
    if has_bias:
        return lambda x, w, bias, residual, y: torch.addmm(bias, x, w, out=y)
    return lambda x, w, bias, residual, y: torch.mm(x, w, out=y)


def _bind(call: Call) -> Bound:
    weight = call.inputs[1]
    assert weight is not None
    turned = weight.constant.detach().t() if weight.constant is not None else None
    compute = _rows(call)

    def run(inputs: Sequence[Any], out: Sequence[Any] | None = None) -> torch.Tensor:
        x, residual = inputs[0], inputs[3]
        w = turned if turned is not None else inputs[1].t()
        shape = (*x.shape[:-1], w.shape[1])
        y = x.new_empty(shape) if out is None else out[0]
        if y.numel():
            flat = None if residual is None else even(residual).view(-1, shape[-1])
            compute(x.reshape(-1, x.shape[-1]), w, even_or_none(inputs[2]), flat, y.view(-1, shape[-1]))
        return y

    return run


KERNELS = (Kernel("cublas.linear", "cuda", _supports, _bind, writes_out=True),)
