"""Declaration of RMSNorm over the last axis."""

from ..call import Call, Cost
from ..declare import Attribute, Op, Param
from ..kernel_checks import element_count, operand_bytes
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def _cost(call: Call) -> Cost:
    return Cost(operand_bytes(call), 4.0 * element_count(call.inputs[0]))


def _body(call: Call) -> str | None:
    return "\n".join(
        [
            "squared = Mul(x, x)",
            "axis = Constant<value_ints=[-1]>()",
            "mean = ReduceMean<keepdims=1>(squared, axis)",
            f"small = Constant<value_float={call.attributes['epsilon']!r}>()",
            "epsilon = CastLike(small, x)",
            "shifted = Add(mean, epsilon)",
            "rms = Sqrt(shifted)",
            "normed = Div(x, rms)",
            "y = Mul(normed, weight)" if call.input(1) is not None else "y = Identity(normed)",
        ]
    )


OP = Op(
    name="RMSNorm",
    doc="y = x / sqrt(mean(x^2) + epsilon) * weight over the last axis, statistics in float32.",
    inputs=(Param("x", "... E"), Param("weight", "E", optional=True, doc="ones when absent")),
    outputs=(Param("y", "... E"),),
    attributes=(Attribute("epsilon", float, 1e-6),),
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    cost=_cost,
    body=_body,
    token_wise=True,
    source="https://arxiv.org/abs/1910.07467",
)
