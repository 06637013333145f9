"""Declaration of EmbedLayerNorm: the embedding block of an encoder."""

from collections.abc import Mapping
from typing import Any

from ...graph.dims import text
from ..call import Call, Cost, Operand
from ..declare import Attribute, Op, Param
from ..kernel_checks import element_count
from .body import body
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import reference


def _infer(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> tuple[Operand | None, ...]:
    ids, table, mask = inputs[0], inputs[1], inputs[8]
    assert ids is not None
    assert table is not None
    width = None if table.shape is None else table.shape[-1]
    y = Operand(table.dtype, None if ids.shape is None else (*ids.shape, width))
    lengths = None if mask is None else Operand("int32", (None,) if mask.shape is None else mask.shape[:1])
    return y, y, lengths


def _check(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> list[str]:
    ids, _, position_ids, positions, type_ids, types = inputs[:6]
    assert ids is not None
    problems = []
    for name, operand, table, other in (
        ("position_ids", position_ids, positions, "position_embedding"),
        ("token_type_ids", type_ids, types, "token_type_embedding"),
    ):
        if operand is not None and table is None:
            problems.append(f"input {name!r} is given without {other!r}")
    packed = ids.rank == 1
    if packed and positions is not None and position_ids is None:
        problems.append("input 'input_ids' is packed [T], so 'position_embedding' needs 'position_ids' [T]")
    for name, operand in (("position_ids", position_ids), ("token_type_ids", type_ids)):
        if packed and operand is not None and operand.shape is not None and operand.shape != ids.shape:
            numbers = all(isinstance(o, int) for o in (*operand.shape, *(ids.shape or ())))
            if operand.rank != 1 or numbers:
                problems.append(f"input {name!r} has shape {text(operand.shape)}, 'input_ids' has {text(ids.shape)}")
    if attributes["position_offset"] < 0:
        problems.append(f"attribute 'position_offset' is {attributes['position_offset']}, expected 0 or more")
    return problems


def _cost(call: Call) -> Cost:
    """Of each table only the rows that are looked up are read."""
    y, tables = call.outputs[0], sum(call.input(i) is not None for i in (1, 3, 5))
    assert y is not None
    width = y.type.bits / 8
    moved = element_count(y) * (tables + 1 + call.wants(1)) * width
    for i in (0, 2, 4, 6, 7, 8):
        operand = call.input(i)
        moved += element_count(operand) * (operand.type.bits / 8 if operand else 0)
    lengths = call.outputs[2] if call.wants(2) else None
    return Cost(moved + 4.0 * element_count(lengths), (7.0 + tables) * element_count(y))


_SAME = "B S | T"
_INDEX = "int32|int64"

OP = Op(
    name="EmbedLayerNorm",
    doc=(
        "sum = word_embedding[input_ids] + position_embedding[position_ids] + token_type_embedding[token_type_ids]; "
        "y = LayerNorm(sum). Ids outside their table raise InputError. Without position_ids, positions count from "
        "position_offset; with padding_idx they count from padding_idx + 1 over the tokens that are not padding."
    ),
    inputs=(
        Param("input_ids", _SAME, _INDEX),
        Param("word_embedding", "V E"),
        Param("position_ids", "1 S | B S | S | T", _INDEX, optional=True),
        Param("position_embedding", "P E", optional=True),
        Param("token_type_ids", _SAME, _INDEX, optional=True, doc="row 0 of the table when absent"),
        Param("token_type_embedding", "G E", optional=True),
        Param("weight", "E"),
        Param("bias", "E"),
        Param("attention_mask", "B S", "int32|int64|bool|float32", optional=True, doc="only for lengths"),
    ),
    outputs=(
        Param("y", "B S E | T E"),
        Param("sum", "B S E | T E", optional=True, doc="before the normalisation"),
        Param("lengths", "B", "int32", optional=True, doc="how many positions of attention_mask are not zero"),
    ),
    attributes=(
        Attribute("epsilon", float, 1e-12),
        Attribute("position_offset", int, 0, doc="position of the first token"),
        Attribute("padding_idx", int, -1, doc="RoBERTa's padding id; -1 for plain counting"),
    ),
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    infer=_infer,
    check=_check,
    cost=_cost,
    body=body,
    source="https://arxiv.org/abs/1810.04805",
)
