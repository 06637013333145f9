"""Declaration of PackIndex: where the tokens of a padded batch are."""

from collections.abc import Mapping
from typing import Any

from ...graph.dims import AnyDim, Dim, symbol
from ..call import Call, Cost, Operand
from ..declare import Op, Param
from ..kernel_checks import element_count
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def one_more(size: AnyDim) -> AnyDim:
    """size + 1, the length of cumulative lengths."""
    if isinstance(size, int):
        return size + 1
    return None if size is None else Dim(size.symbols, size.coefficient, size.offset + 1)


def _infer(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> tuple[Operand | None, ...]:
    mask = inputs[0]
    assert mask is not None
    batch = None if mask.shape is None else mask.shape[0]
    # How many tokens there are depends on the values of the mask: a named size of its own.
    return Operand("int64", (symbol("T"),)), Operand("int32", (one_more(batch),)), Operand("int32", ())


def _cost(call: Call) -> Cost:
    mask = call.inputs[0]
    assert mask is not None
    count = element_count(mask)
    return Cost(count * mask.type.bits / 8 + 8.0 * count, float(count))


def _body(call: Call) -> str | None:
    return "\n".join(
        [
            "keep = Cast<to=9>(mask)",
            "flat_shape = Constant<value_ints=[-1]>()",
            "flat = Reshape(keep, flat_shape)",
            "found = NonZero(flat)",
            "token_index = Reshape(found, flat_shape)",
            "ones = Cast<to=6>(keep)",
            "last = Constant<value_ints=[-1]>()",
            "lengths = ReduceSum<keepdims=0>(ones, last)",
            "axis = Constant<value_int=0>()",
            "summed = CumSum(lengths, axis)",
            "nothing = Constant<value_ints=[0]>()",
            "zero = Cast<to=6>(nothing)",
            "cu_seqlens = Concat<axis=0>(zero, summed)",
            "at_least_zero = Concat<axis=0>(zero, lengths)",
            "max_seqlen = ReduceMax<keepdims=0>(at_least_zero)",
        ]
    )


OP = Op(
    name="PackIndex",
    doc=(
        "Where the tokens of a padded batch are: positions whose mask is not zero, row by row. "
        "Padding may be on either side and holes are allowed."
    ),
    inputs=(Param("mask", "B S", "int32|int64|bool|float32"),),
    outputs=(
        Param("token_index", "T", "int64", doc="position in the flattened [B*S] batch"),
        Param("cu_seqlens", "B+1", "int32", doc="where each sequence begins in the packed tokens"),
        Param("max_seqlen", "", "int32", host=True, doc="the longest sequence"),
    ),
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    infer=_infer,
    cost=_cost,
    body=_body,
    source="https://arxiv.org/abs/2208.08124",
)
