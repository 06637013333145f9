"""Declaration of QuantLinear: a linear layer whose product is one of bytes."""

from collections.abc import Mapping
from typing import Any

from ...dtypes import FLOATS
from ..call import Call, Cost, Operand
from ..declare import Attribute, Op, Param
from ..kernel_checks import element_count, operand_bytes
from .body import body
from .cases import cases
from .cpu import KERNELS
from .reference import reference


def _check(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> list[str]:
    scale, zero = inputs[5:7]
    if (scale is None) != (zero is None):
        given, missing = ("x_scale", "x_zero") if zero is None else ("x_zero", "x_scale")
        return [f"input {given!r} is given without {missing!r}; give both, or none for a scale of every row"]
    return []


def _cost(call: Call) -> Cost:
    weight = call.inputs[1]
    assert weight is not None
    assert weight.shape is not None
    features = weight.shape[0]
    assert isinstance(features, int)
    return Cost(operand_bytes(call), 2.0 * element_count(call.inputs[0]) * features)


OP = Op(
    name="QuantLinear",
    doc="y = act(q(x) W^T + bias) + residual: a linear layer that multiplies bytes and sums them exactly.",
    inputs=(
        Param("x", "... K", doc="activations, turned into bytes by the operator"),
        Param("weight", "M K", "int8", doc="one row an output feature"),
        Param("weight_scale", "M", "float32", doc="W = weight * weight_scale, row by row"),
        Param("bias", "M", optional=True),
        Param("residual", "... M", optional=True, doc="added after the activation"),
        Param(
            "x_scale",
            "",
            "float32",
            optional=True,
            doc="x = (byte - x_zero) * x_scale; without it every row gets a scale and zero of its own, from its range",
        ),
        Param("x_zero", "", "uint8", optional=True, doc="the byte that stands for 0"),
        Param("x_factor", "K", "float32", optional=True, doc="x is multiplied by it before it becomes bytes"),
    ),
    outputs=(Param("y", "... M"),),
    attributes=(Attribute("activation", str, "none", ("none", "relu", "gelu_erf", "gelu_tanh", "silu")),),
    types={"T": FLOATS},
    reference=reference,
    kernels=KERNELS,
    cases=cases,
    cost=_cost,
    body=body,
    token_wise=True,
    check=_check,
    source="https://arxiv.org/abs/2206.01861",
)
