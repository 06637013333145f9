"""Declaration of Gelu, with the bias of the linear layer before it."""

from ..call import Call, Cost
from ..declare import Attribute, Op, Param
from ..kernel_checks import element_count, operand_bytes
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def _cost(call: Call) -> Cost:
    return Cost(operand_bytes(call), (8.0 + (call.input(1) is not None)) * element_count(call.inputs[0]))


def _body(call: Call) -> str | None:
    shifted = "v = Add(x, bias)" if call.input(1) else "v = Identity(x)"
    return f'{shifted}\ny = Gelu<approximate="{call.attributes["approximate"]}">(v)'


OP = Op(
    name="Gelu",
    doc="y = v * Phi(v) with v = x + bias: the exact form (erf) or the tanh approximation.",
    inputs=(Param("x", "... E"), Param("bias", "E", optional=True)),
    outputs=(Param("y", "... E"),),
    attributes=(Attribute("approximate", str, "none", ("none", "tanh")),),
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    cost=_cost,
    body=_body,
    token_wise=True,
    source="https://arxiv.org/abs/1606.08415",
)
