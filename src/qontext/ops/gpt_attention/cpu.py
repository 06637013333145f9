"""GptAttention on the CPU: generation reads the cache in C++, contexts go to the attention kernels of encoders."""

from collections.abc import Callable

import torch

from ...native.decode import decode
from ..attention_common import native_kernel
from ..attention_common.problem import Problem
from ..attention_common.torch_kernels import fused, two_products
from ..call import Bound, Call, Kernel, Tensors
from ..native_kernel import native_is_here
from .rows import named
from .step import Attend, Decode, Step

Tensor = torch.Tensor


def _native_supports(call: Call) -> str | None:
    return native_is_here()


def _torch_supports(call: Call) -> str | None:
    return None


def _native_attend(problem: Problem, out: Tensor, queries: int, keys: int) -> None:
    native_kernel.run(problem, out)


def torch_attend(problem: Problem, out: Tensor, queries: int, keys: int) -> None:
    """Attention by torch's operators, on any device."""
    if problem.rule.softcap:  # scaled_dot_product_attention has none
        two_products(problem, out)
    else:
        out.copy_(fused(problem))


def bind_step(step: Step) -> Bound:
    """A kernel that runs the step: fills the context and updates the cache."""

    def run(inputs: Tensors, out: Tensors | None = None) -> tuple[Tensor | None, ...]:
        given = named(inputs)
        qkv = given["qkv"]
        assert qkv is not None
        if out is None or out[0] is None:
            context = qkv.new_empty(*qkv.shape[:-1], step.heads * step.size)
        else:
            context = out[0]
        step.run(given, context)
        return context, given["past"]

    return run


def _bind(attend: Attend, decode: Decode | None) -> Callable[[Call], Bound]:
    return lambda call: bind_step(Step(call.attributes, attend, decode, torch.device("cpu")))


KERNELS = (
    Kernel("native.gpt_attention", "cpu", _native_supports, _bind(_native_attend, decode), writes_out=True),
    Kernel("torch.gpt_attention", "cpu", _torch_supports, _bind(torch_attend, None), writes_out=True),
)
