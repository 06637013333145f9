"""Declaration of RotaryEmbedding: positions as rotations of query and key heads."""

from collections.abc import Mapping
from typing import Any

from ...graph.dims import AnyDim, text
from ..call import Call, Cost, Operand
from ..declare import Attribute, Op, Param
from ..kernel_checks import element_count, operand_bytes
from .body import body
from .cases import cases
from .cpu import KERNELS as CPU_KERNELS
from .gpu import KERNELS as GPU_KERNELS
from .reference import FLAT_LAYOUTS, LAYOUTS, reference


def _infer(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> tuple[Operand | None, ...]:
    x = inputs[0]
    assert x is not None
    return (Operand(x.dtype, x.shape),)


def _head_size(x: Operand, attributes: Mapping[str, Any]) -> AnyDim:
    width = x.shape[-1] if x.shape else None
    if attributes["layout"] not in FLAT_LAYOUTS:
        return width
    return width // attributes["num_heads"] if isinstance(width, int) else None


def _check(inputs: tuple[Operand | None, ...], attributes: Mapping[str, Any]) -> list[str]:
    x, cos, _, position_ids = inputs
    assert x is not None
    assert cos is not None
    layout, heads = attributes["layout"], attributes["num_heads"]
    if layout in FLAT_LAYOUTS and heads < 1:
        return [f"attribute 'num_heads' is {heads}, but layout {layout!r} needs the number of heads"]
    rank = len(layout.replace("(N D)", "ND").split())
    if x.rank is not None and x.rank != rank:
        return [f"input 'x' has shape {text(x.shape)}, but layout {layout!r} has {rank} axes"]
    problems = []
    width = x.shape[-1] if x.shape else None
    if layout in FLAT_LAYOUTS and isinstance(width, int) and width % heads:
        problems.append(f"attribute 'num_heads' is {heads}, which does not divide the last axis {width} of 'x'")
    pairs, size = cos.shape[-1] if cos.shape else None, _head_size(x, attributes)
    if isinstance(pairs, int) and isinstance(size, int) and 2 * pairs > size:
        problems.append(f"input 'cos' has {pairs} pairs, but heads of size {size} hold at most {size // 2}")
    token_axes = 1 if layout.startswith("T") else 2
    if position_ids is not None:
        if position_ids.rank not in (None, token_axes):
            form = "[T]" if token_axes == 1 else "[B, S]"
            problems.append(f"input 'position_ids' has shape {text(position_ids.shape)}, expected {form}")
        token_axes = 1
    if cos.rank not in (None, token_axes + 1):
        looked_up = "a table [P, R]" if position_ids is not None else "one row a token, as 'position_ids' is absent"
        problems.append(f"input 'cos' has shape {text(cos.shape)}, expected {looked_up}")
    return problems


def _cost(call: Call) -> Cost:
    """Of a table only the rows that are looked up are read."""
    x, cos, position_ids = call.inputs[0], call.inputs[1], call.inputs[3]
    assert cos is not None
    assert cos.shape is not None
    pairs = cos.shape[-1]
    assert isinstance(pairs, int)
    moved = operand_bytes(call)
    if position_ids is not None:
        unread = element_count(cos) - element_count(position_ids) * pairs
        moved -= 2 * max(unread, 0) * cos.type.bits / 8
    return Cost(moved, 3.0 * element_count(x))


OP = Op(
    name="RotaryEmbedding",
    doc=(
        "Turns pairs (a, b) of each head by the angle of its token: (a cos - b sin, b cos + a sin). "
        "Pairs are (i, i + R) for 'half' (GPT-NeoX, Llama) and (2i, 2i + 1) for 'interleaved' (GPT-J); "
        "elements from 2R on stay as they are."
    ),
    inputs=(
        Param("x", "...", doc="queries or keys; its shape is what the attribute 'layout' says"),
        Param("cos", "P R | B S R", doc="a table, or one row a token ([B, S, R] or packed [T, R])"),
        Param("sin", "P R | B S R", doc="as cos"),
        Param("position_ids", "B S | T", "int32|int64", optional=True, doc="rows of the table"),
    ),
    outputs=(Param("y", "..."),),
    attributes=(
        Attribute("layout", str, "B N S D", LAYOUTS),
        Attribute("pairing", str, "half", ("half", "interleaved")),
        Attribute("num_heads", int, 0, doc="needed where the layout joins heads, as in (N D)"),
    ),
    reference=reference,
    kernels=(*CPU_KERNELS, *GPU_KERNELS),
    cases=cases,
    infer=_infer,
    check=_check,
    cost=_cost,
    body=body,
    source="https://arxiv.org/abs/2104.09864",
)
