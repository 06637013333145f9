"""Declaration of SkipLayerNorm: residual addition and layer normalisation in one pass."""

from collections.abc import Mapping
from typing import Any

from ..call import Call, Cost, Operand
from ..declare import Attribute, Op, Param
from ..eight_bits import KINDS, NONE, result_operands, wanted_problems
from ..kernel_checks import element_count, operand_bytes
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def _cost(call: Call) -> Cost:
    additions = 1.0 + (call.input(4) is not None)
    return Cost(operand_bytes(call), (8.0 + additions) * element_count(call.inputs[0]))


def _check(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> list[str]:
    return wanted_problems(attributes["eight_bits"], *inputs[5:8])


def _infer(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> tuple[Operand | None, ...]:
    x = inputs[0]
    assert x is not None
    y = Operand(x.dtype, x.shape)
    return (y, y, *result_operands(y, attributes["eight_bits"]))


def _body(call: Call) -> str | None:
    if call.attributes["eight_bits"] != NONE:
        return None
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
        Param("y_scale", "", "float32", optional=True, doc="static, of y8; without it every row gets its own"),
        Param(
            "y_zero", "", "uint8", optional=True, doc="the byte that stands for 0 in y8, with a static scale of int8"
        ),
        Param("y_factor", "E", "float32", optional=True, doc="y is multiplied by it before it becomes y8"),
    ),
    outputs=(
        Param("y", "... E"),
        Param("sum", "... E", optional=True, doc="x + skip + x_bias, for the next residual branch"),
        Param("y8", "... E", "|".join(KINDS), optional=True, doc="y in eight bits, for the next product"),
        Param("row_scale", "...", "float32", optional=True, doc="of every row of y8"),
        Param("row_zero", "...", "float32", optional=True, doc="the byte that stands for 0 in every row of y8 in int8"),
    ),
    attributes=(
        Attribute("epsilon", float, 1e-12),
        Attribute("eight_bits", str, NONE, (NONE, *KINDS), doc="what y8 is held in"),
    ),
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    infer=_infer,
    check=_check,
    cost=_cost,
    body=_body,
    token_wise=True,
    source="https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md"
    "#com.microsoft.SkipLayerNormalization",
)
