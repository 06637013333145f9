"""Declaration of GroupLinear: a linear layer with weights of four bits, scaled in groups along K."""

from collections.abc import Mapping
from typing import Any

from ...dtypes import FLOATS
from ...graph.dims import text
from ..call import Call, Cost, Operand
from ..declare import Attribute, Op, Param
from ..kernel_checks import element_count, operand_bytes
from .body import body
from .cases import cases
from .cpu import KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def _check(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> list[str]:
    x, weight, scale = inputs[:3]
    assert x is not None and weight is not None and scale is not None
    if not x.shape or weight.shape is None or scale.shape is None:
        return []
    k, halves, groups = x.shape[-1], weight.shape[1], scale.shape[1]
    if not (isinstance(k, int) and isinstance(halves, int) and isinstance(groups, int)):
        return []
    problems = []
    if k != 2 * halves:
        problems.append(f"input 'weight' has shape {text(weight.shape)}, it needs [M, {k}/2]: two values a byte")
    elif groups == 0 or k % groups or k // groups % 2:
        problems.append(f"input 'weight_scale' has {groups} groups; {k} columns are no {groups} groups of an even size")
    return problems


def _cost(call: Call) -> Cost:
    weight = call.inputs[1]
    assert weight is not None and weight.shape is not None
    features = weight.shape[0]
    assert isinstance(features, int)
    return Cost(operand_bytes(call), 2.0 * element_count(call.inputs[0]) * features)


OP = Op(
    name="GroupLinear",
    doc="y = act(x W^T + bias) + residual with weights of four bits, each group along K with a scale and a zero.",
    inputs=(
        Param("x", "... K", doc="activations"),
        Param("weight", "M halves", "uint8", doc="K/2 bytes a row: two values each, the first in the low half"),
        Param("weight_scale", "M groups", "float32", doc="W = (value - zero) * scale, K/groups values share them"),
        Param("weight_zero", "M groups", "uint8", doc="the value that stands for 0"),
        Param("bias", "M", optional=True),
        Param("residual", "... M", optional=True, doc="added after the activation"),
    ),
    outputs=(Param("y", "... M"),),
    attributes=(Attribute("activation", str, "none", ("none", "relu", "gelu_erf", "gelu_tanh", "silu")),),
    types={"T": FLOATS},
    reference=reference,
    kernels=(*KERNELS, *GPU_KERNELS),
    cases=cases,
    cost=_cost,
    body=body,
    token_wise=True,
    check=_check,
    source="https://arxiv.org/abs/2210.17323",
)
