"""QuantQKVToContext on the CPU: our own kernel, whose products are VNNI's where the processor has it."""

from ...native.quant_attention import quant_attention
from ..attention_common import native_kernel
from ..attention_common.layouts import CONTEXT_OF, heads_of, is_packed
from ..call import Bound, Call, Kernel, Result, Tensors
from ..kernel_checks import rank_known
from ..native_kernel import even
from ..qkv_to_context.problem import problem_of
from ..qkv_to_context.rules import sizes_of
from .rules import CONTEXT_SCALE, QKV_SCALE

MOST_KEYS = 130_000  # sums of more products of bytes could leave 32 bits


def _supports(call: Call) -> str | None:
    qkv, kind = call.inputs[0], call.attributes["eight_bits"]
    assert qkv is not None
    unknown = rank_known(qkv, "qkv")
    if unknown is not None:
        return unknown
    if kind != "int8":
        return f"eight_bits is {kind!r}; the kernel multiplies bytes"
    sizes = sizes_of(qkv, call.input(4), call.attributes)
    length = sizes["T"] if is_packed(call.attributes["layout"]) else sizes["S"]
    if isinstance(length, int) and length > MOST_KEYS:
        return f"{length} keys: their products of bytes leave 32 bits; the kernel sums {MOST_KEYS}"
    packed, size = is_packed(call.attributes["layout"]), sizes["D"]
    return native_kernel.refusal(call, (size, size), call.input(2), call.input(3), packed, self_attention=True)


def _bind(call: Call) -> Bound:
    attributes = call.attributes
    layout, heads, step = CONTEXT_OF[attributes["layout"]], attributes["num_heads"], attributes["dq_probs"]

    def run(inputs: Tensors, out: Tensors | None = None) -> Result:
        assert out is not None and out[0] is not None
        qkv, scale, context_scale = inputs[0], inputs[QKV_SCALE], inputs[CONTEXT_SCALE]
        problem = problem_of((None if qkv is None else even(qkv), *inputs[1:7]), attributes)
        quant_attention(
            problem.query,
            problem.key,
            problem.value,
            out=heads_of(out[0], layout, heads),
            scales=None if scale is None else scale.expand(3).tolist(),
            context_scale=None if context_scale is None else float(context_scale),
            dq_probs=step,
            cu_seqlens_q=native_kernel.int32(problem.cu_q),
            cu_seqlens_k=native_kernel.int32(problem.cu_kv),
            **native_kernel.arguments(problem),
        )
        return out[0]

    return run


KERNELS = (Kernel("native.quant_attention", "cpu", _supports, _bind, writes_out=True),)
