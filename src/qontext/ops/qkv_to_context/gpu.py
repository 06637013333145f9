"""QKVToContext on the GPU: Triton kernels straight from the projection, and PyTorch's fused operator."""

from collections.abc import Callable

from ..attention_common import gpu_hopper
from ..attention_common.gpu import Attend, Longest, bind_masked, bind_plain
from ..attention_common.gpu_choice import needs_masks, on_the_gpu, refusal
from ..attention_common.layouts import CONTEXT_OF, heads_of, is_packed
from ..call import Bound, Call, Kernel, Result, Tensors
from ..kernel_checks import rank_known
from . import cpu
from .problem import problem_of
from .rules import sizes_of

_SCORES, _VALUES = 1, 2


def _supports(call: Call) -> str | None:
    qkv, layout = call.inputs[0], call.attributes["layout"]
    assert qkv is not None
    if call.wants(_SCORES):
        return "the output 'scores' is wanted; the kernel keeps none"
    if is_packed(layout) and call.wants(_VALUES):
        return f"layout {layout!r} is packed, where values have sizes that only the run knows"
    for name, operand in zip(("context_scale", "context_zero", "context_factor"), call.inputs[7:10], strict=True):
        if operand is not None and operand.constant is None:
            return f"{name} is no constant"
    return rank_known(qkv, "qkv") or refusal(call, (sizes_of(qkv, call.input(4), call.attributes)["D"],))


def _needs_masks(call: Call) -> str | None:
    return needs_masks(call, call.input(2), call.input(3), may_be_empty=call.input(1) is not None)


def _plain_supports(call: Call) -> str | None:
    return _supports(call) or _needs_masks(call)


def _hopper_supports(call: Call) -> str | None:
    refused = _plain_supports(call)
    if refused is not None:
        return refused
    qkv = call.inputs[0]
    assert qkv is not None
    size = sizes_of(qkv, call.input(4), call.attributes)["D"]
    return gpu_hopper.refusal(call, size, size)


def _masked_supports(call: Call) -> str | None:
    plain = "0 of its inputs are masks or biases, it has no soft cap and no empty rows; triton.attention does with less"
    return _supports(call) or (None if _needs_masks(call) else plain)


def _bind(prepare: Callable[[Call], Attend]) -> Callable[[Call], Bound]:
    """Makes a bind of a kernel that fills the context."""

    def bind(call: Call) -> Bound:
        attend = prepare(call)
        attributes = call.attributes
        layout, heads = CONTEXT_OF[attributes["layout"]], attributes["num_heads"]
        packed = is_packed(layout)

        def run(inputs: Tensors, out: Tensors | None = None) -> Result:
            assert out is not None
            context, _, values = out
            assert context is not None
            problem = problem_of(inputs, attributes)
            length = problem.query.shape[1]
            if packed:
                assert inputs[5] is not None
                length = int(inputs[5])
            attend(problem, heads_of(context, layout, heads), Longest(length, length))
            if values is not None:
                values.copy_(problem.value.transpose(1, 2))
            return context, None, values

        return run

    return bind


KERNELS = (
    Kernel("hopper.attention", "cuda", _hopper_supports, _bind(gpu_hopper.bind_hopper), writes_out=True),
    Kernel("triton.attention", "cuda", _plain_supports, _bind(bind_plain), writes_out=True),
    Kernel("triton.masked_attention", "cuda", _masked_supports, _bind(bind_masked), writes_out=True),
    *(on_the_gpu(kernel) for kernel in cpu.KERNELS if kernel.name.startswith("torch.")),
)
