"""Declaration of LayerNorm over the last axis."""

from ..call import Call, Cost
from ..declare import Attribute, Op, Param
from ..kernel_checks import element_count, operand_bytes
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def _cost(call: Call) -> Cost:
    return Cost(operand_bytes(call), 8.0 * element_count(call.inputs[0]))


def _body(call: Call) -> str | None:
    epsilon = f"epsilon={call.attributes['epsilon']!r}"
    if call.input(1) is not None:
        names = "x, weight, bias" if call.input(2) is not None else "x, weight"
        return f"y = LayerNormalization<axis=-1, {epsilon}>({names})"
    # LayerNormalization-17 requires a weight: a vector of ones as wide as x stands in for the absent one.
    lines = [
        "shape = Shape<start=-1>(x)",
        "one = Constant<value_float=1.0>()",
        "like = CastLike(one, x)",
        "ones = Expand(like, shape)",
    ]
    names = "x, ones, bias" if call.input(2) is not None else "x, ones"
    return "\n".join([*lines, f"y = LayerNormalization<axis=-1, {epsilon}>({names})"])


OP = Op(
    name="LayerNorm",
    doc="y = (x - mean) / sqrt(variance + epsilon) * weight + bias over the last axis, statistics in float32.",
    inputs=(
        Param("x", "... E"),
        Param("weight", "E", optional=True, doc="ones when absent"),
        Param("bias", "E", optional=True, doc="zeros when absent"),
    ),
    outputs=(Param("y", "... E"),),
    attributes=(Attribute("epsilon", float, 1e-5),),
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    cost=_cost,
    body=_body,
    token_wise=True,
    source="https://arxiv.org/abs/1607.06450",
)
