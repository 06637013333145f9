"""Declaration of UnpackTokens: padding put back."""

from ...dtypes import FLOATS, INTS
from ..call import Call, Cost
from ..declare import Op, Param
from ..kernel_checks import element_count
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def _cost(call: Call) -> Cost:
    x, padded = call.inputs[0], call.outputs[0]
    assert x is not None
    assert padded is not None
    width = x.type.bits / 8
    return Cost((element_count(x) + element_count(padded)) * width + 8.0 * element_count(call.inputs[1]), 0.0)


def _body(call: Call) -> str | None:
    return "\n".join(
        [
            "mask_shape = Shape(mask)",
            "tail = Shape<start=1>(x)",
            "all = Size(mask)",
            "one = Constant<value_ints=[1]>()",
            "rows = Reshape(all, one)",
            "flat_shape = Concat<axis=0>(rows, tail)",
            "nothing = Constant<value_float=0.0>()",
            "zero = CastLike(nothing, x)",
            "zeros = Expand(zero, flat_shape)",
            "last = Constant<value_ints=[-1]>()",
            "places = Unsqueeze(token_index, last)",
            "filled = ScatterND(zeros, places, x)",
            "shape = Concat<axis=0>(mask_shape, tail)",
            "padded = Reshape(filled, shape)",
        ]
    )


OP = Op(
    name="UnpackTokens",
    doc="Padding put back: packed rows at their places in the padded batch, zeros elsewhere.",
    inputs=(
        Param("x", "T ..."),
        Param("token_index", "T", "int64", doc="from PackIndex"),
        Param("mask", "B S", "int32|int64|bool|float32", doc="the mask that token_index came from; only its shape"),
    ),
    outputs=(Param("padded", "B S ..."),),
    types={"T": (*FLOATS, *INTS, "bool")},
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    cost=_cost,
    body=_body,
    source="https://arxiv.org/abs/2208.08124",
)
