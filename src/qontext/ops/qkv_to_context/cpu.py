"""QKVToContext on the CPU with PyTorch's operators."""


from ..attention_common.layouts import CONTEXT_OF, from_heads, heads_of, is_packed
from ..attention_common.torch_kernels import fused, two_products
from ..call import Bound, Call, Kernel, Result, Tensors
from ..kernel_checks import rank_known
from .problem import problem_of

_SCORES, _VALUES = 1, 2


def _packed_extras(call: Call) -> str | None:
    layout = call.attributes["layout"]
    if is_packed(layout) and (call.wants(_SCORES) or call.wants(_VALUES)):
        return f"layout {layout!r} is packed, where scores and values have sizes that only the run knows"
    return None


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


KERNELS = (
    Kernel("torch.sdpa", "cpu", _fused_supports, _fused_bind),
    Kernel("torch.bmm", "cpu", _products_supports, _products_bind, writes_out=True),
)
