"""Declaration of PackTokens: padding removed."""

from ...dtypes import FLOATS, INTS
from ..call import Call, Cost
from ..declare import Op, Param
from ..kernel_checks import element_count
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def _cost(call: Call) -> Cost:
    packed = call.outputs[0]
    assert packed is not None
    return Cost(2 * element_count(packed) * packed.type.bits / 8 + 8.0 * element_count(call.inputs[1]), 0.0)


def _body(call: Call) -> str | None:
    x = call.inputs[0]
    assert x is not None
    if x.rank is None:
        return None
    lines = ["row = Constant<value_ints=[-1]>()"]
    if x.rank == 2:
        lines.append("rows = Reshape(x, row)")
    else:
        # The trailing axes keep their sizes, which need not be known: [-1] is joined with the tail of the shape.
        lines += ["tail = Shape<start=2>(x)", "shape = Concat<axis=0>(row, tail)", "rows = Reshape(x, shape)"]
    return "\n".join([*lines, "packed = Gather<axis=0>(rows, token_index)"])


OP = Op(
    name="PackTokens",
    doc="Padding removed: the rows of x at token_index, one after the other.",
    inputs=(
        Param("x", "B S ..."),
        Param("token_index", "T", "int64", doc="from PackIndex"),
    ),
    outputs=(Param("packed", "T ..."),),
    types={"T": (*FLOATS, *INTS, "bool")},
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    cost=_cost,
    body=_body,
    source="https://arxiv.org/abs/2208.08124",
)
