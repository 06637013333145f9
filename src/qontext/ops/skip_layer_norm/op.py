"""Declaration of SkipLayerNorm: residual addition and layer normalisation in one pass."""

from ..call import Call, Cost
from ..declare import Attribute, Op, Param
from ..kernel_checks import element_count, operand_bytes
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def _cost(call: Call) -> Cost:
    additions = 1.0 + (call.input(4) is not None)
    return Cost(operand_bytes(call), (8.0 + additions) * element_count(call.inputs[0]))


def _body(call: Call) -> str | None:
    total = ["added = Add(x, skip)", "sum = Add(added, x_bias)"] if call.input(4) else ["sum = Add(x, skip)"]
    names = "sum, weight, bias" if call.input(3) else "sum, weight"
    return "\n".join([*total, f"y = LayerNormalization<axis=-1, epsilon={call.attributes['epsilon']!r}>({names})"])


OP = Op(
    name="SkipLayerNorm",
    doc="sum = x + skip + x_bias; y = LayerNorm(sum): residual addition and normalisation in one pass.",
    inputs=(
        Param("x", "... E"),
        Param("skip", "... E", doc="the residual branch"),
        Param("weight", "E"),
        Param("bias", "E", optional=True, doc="of the normalisation; zeros when absent"),
        Param("x_bias", "E", optional=True, doc="of the linear layer that produced x"),
    ),
    outputs=(
        Param("y", "... E"),
        Param("sum", "... E", optional=True, doc="x + skip + x_bias, for the next residual branch"),
    ),
    attributes=(Attribute("epsilon", float, 1e-12),),
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    cost=_cost,
    body=_body,
    token_wise=True,
    source="https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md"
    "#com.microsoft.SkipLayerNormalization",
)
