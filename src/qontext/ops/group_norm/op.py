"""Declaration of GroupNorm over groups of channels."""

from collections.abc import Mapping
from typing import Any

from ..call import Call, Cost, Operand
from ..declare import Attribute, Op, Param
from ..kernel_checks import element_count, operand_bytes
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def _check(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> list[str]:
    x, groups = inputs[0], attributes["num_groups"]
    assert x is not None
    if groups < 1:
        return [f"attribute 'num_groups' is {groups}, expected 1 or more"]
    channels = x.shape[1] if x.shape is not None else None
    if isinstance(channels, int) and channels % groups:
        return [f"attribute 'num_groups' is {groups}, which does not divide the {channels} channels of 'x'"]
    return []


def _cost(call: Call) -> Cost:
    return Cost(operand_bytes(call), 8.0 * element_count(call.inputs[0]))


def _body(call: Call) -> str | None:
    x = call.inputs[0]
    assert x is not None
    if x.rank is None:
        return None
    groups, epsilon = call.attributes["num_groups"], call.attributes["epsilon"]
    ones = ", ".join(["1"] * (x.rank - 2))
    per_channel = f"[-1, {ones}]" if ones else "[-1]"
    return "\n".join(
        [
            f"grouping = Constant<value_ints=[0, {groups}, -1]>()",
            "grouped = Reshape(x, grouping)",
            "axis = Constant<value_ints=[-1]>()",
            "mean = ReduceMean<keepdims=1>(grouped, axis)",
            "centred = Sub(grouped, mean)",
            "squared = Mul(centred, centred)",
            "variance = ReduceMean<keepdims=1>(squared, axis)",
            f"small = Constant<value_float={epsilon!r}>()",
            "epsilon = CastLike(small, x)",
            "shifted = Add(variance, epsilon)",
            "deviation = Sqrt(shifted)",
            "normed = Div(centred, deviation)",
            "shape = Shape(x)",
            "ungrouped = Reshape(normed, shape)",
            f"per_channel = Constant<value_ints={per_channel}>()",
            "w = Reshape(weight, per_channel)",
            "b = Reshape(bias, per_channel)",
            "scaled = Mul(ungrouped, w)",
            "y = Add(scaled, b)",
        ]
    )


OP = Op(
    name="GroupNorm",
    doc="Each group of channels is normalised over its channels and all spatial axes, statistics in float32.",
    inputs=(
        Param("x", "B C ...", doc="batch, channels, any number of spatial axes"),
        Param("weight", "C"),
        Param("bias", "C"),
    ),
    outputs=(Param("y", "B C ..."),),
    attributes=(Attribute("num_groups", int), Attribute("epsilon", float, 1e-5)),
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    cost=_cost,
    body=_body,
    check=_check,
    source="https://arxiv.org/abs/1803.08494",
)
