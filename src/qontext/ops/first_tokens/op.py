"""Declaration of FirstTokens: the row that stands for a sequence in BERT-style poolers."""

from collections.abc import Mapping
from typing import Any

from ...graph.dims import AnyDim, Dim
from ..call import Call, Cost, Operand
from ..declare import Op, Param
from ..kernel_checks import element_count
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def one_less(size: AnyDim) -> AnyDim:
    """size - 1: how many sequences cumulative lengths describe."""
    if isinstance(size, int):
        return size - 1
    return None if size is None else Dim(size.symbols, size.coefficient, size.offset - 1)


def _infer(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> tuple[Operand | None, ...]:
    x, cu_seqlens = inputs
    assert x is not None
    assert cu_seqlens is not None
    batch = None if cu_seqlens.shape is None else one_less(cu_seqlens.shape[0])
    return (Operand(x.dtype, (batch, None if x.shape is None else x.shape[-1])),)


def _check(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> list[str]:
    cu_seqlens = inputs[1]
    if cu_seqlens is not None and cu_seqlens.shape == (0,):
        return ["input 'cu_seqlens' is empty, expected B + 1 numbers, the first of them 0"]
    return []


def _cost(call: Call) -> Cost:
    y = call.outputs[0]
    assert y is not None
    return Cost(2 * element_count(y) * y.type.bits / 8 + 4.0 * element_count(call.inputs[1]), 0.0)


def _body(call: Call) -> str | None:
    return "\n".join(
        [
            "zero = Constant<value_ints=[0]>()",
            "one = Constant<value_ints=[1]>()",
            "minus_one = Constant<value_ints=[-1]>()",
            "far = Constant<value_ints=[9223372036854775807]>()",
            "begins = Slice(cu_seqlens, zero, minus_one)",
            "ends = Slice(cu_seqlens, one, far)",
            # A row of zeros at the end: an empty sequence at the end begins there, and x may have no rows.
            "pads = Constant<value_ints=[0, 0, 1, 0]>()",
            "longer = Pad(x, pads)",
            "rows = Gather<axis=0>(longer, begins)",
            "empty = Equal(begins, ends)",
            "is_empty = Unsqueeze(empty, minus_one)",
            "nothing = Constant<value_float=0.0>()",
            "zero_like = CastLike(nothing, x)",
            "y = Where(is_empty, zero_like, rows)",
        ]
    )


OP = Op(
    name="FirstTokens",
    doc="The first token of each packed sequence, zeros for an empty one.",
    inputs=(Param("x", "T E"), Param("cu_seqlens", "B+1", "int32", doc="from PackIndex")),
    outputs=(Param("y", "B E"),),
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    infer=_infer,
    check=_check,
    cost=_cost,
    body=_body,
    source="https://arxiv.org/abs/1810.04805",
)
