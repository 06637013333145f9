"""Tensors held in eight bits: what operators that read or write them share.

    x = held * scale                          (float8_e4m3)
    x = (held + 128 - zero) * scale           (int8: a byte less 128; `zero`, the byte that stands for 0, is in 0..255)

A scale is static, one number for the tensor, or found at run time, one for each row. Columns may be multiplied by a
factor first. An operator that writes eight bits takes `y_scale`, `y_zero` and `y_factor` when they are static; without
a scale it writes those that it found for each row beside the result.
"""

from collections.abc import Sequence

import torch

from ..dtypes import by_name
from .call import Operand

KINDS = ("int8", "float8_e4m3")
NONE = "none"
MOST = 448.0  # the largest number of float8_e4m3
LEAST_RANGE = 1e-30  # rows that span less are all zeros


def wanted_problems(kind: str, scale: Operand | None, zero: Operand | None, factor: Operand | None) -> list[str]:
    """Sentences about scales that do not fit the kind of a result in eight bits ("none": there is no such result)."""
    given = {"y_scale": scale, "y_zero": zero, "y_factor": factor}
    if kind == NONE:
        return [f"input {n!r} is given, but no result in eight bits is wanted" for n, o in given.items() if o]
    problems = []
    if kind != "int8" and zero is not None:
        problems.append(f"input 'y_zero' is given, but {kind} holds 0 itself")
    if kind == "int8" and (scale is None) != (zero is None):
        problems.append("inputs 'y_scale' and 'y_zero' go together; give both, or none for scales of every row")
    return problems


def held(
    x: torch.Tensor,
    kind: str,
    scale: torch.Tensor | None = None,
    zero: torch.Tensor | None = None,
    factor: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(x in eight bits, scale [...], zero [...]) of x [..., K]; scales and zeros of the rows, static or found.

    All of this is float32 arithmetic, whatever the dtype of x, so that every kernel can make the same bits. Scales that
    are found are NaN for a row with a NaN or an infinity.
    """
    wide = x.float() if factor is None else x.float() * factor.float()
    if kind == "int8":
        values, scales, zeros = bytes_of(wide, scale, zero)
        return (values - 128).to(torch.int8), scales[..., 0], zeros[..., 0]
    nothing = (wide * 0).sum(-1)
    if scale is None:
        largest = wide.abs().amax(-1) + nothing if wide.shape[-1] else nothing
        empty = largest < LEAST_RANGE
        scales = torch.where(empty, torch.ones_like(largest), largest / MOST)
        inverse = torch.where(empty, torch.zeros_like(largest), torch.full_like(largest, MOST) / largest)
    else:
        scales = scale.float().expand(nothing.shape)
        inverse = torch.ones_like(scales) / scales
    values = (wide * inverse[..., None]).clamp(-MOST, MOST).to(by_name(kind).torch)
    return values, scales, torch.zeros_like(scales)


def bytes_of(
    x: torch.Tensor,
    x_scale: torch.Tensor | None = None,
    x_zero: torch.Tensor | None = None,
    x_factor: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(bytes, scale, zero) with x * x_factor about (bytes - zero) * scale: bytes as float32 of the shape of x.

    Without a scale every row gets its own: its range, with 0 in it, becomes 0..255. All of this is float32 arithmetic,
    whatever the dtype of x, so that every kernel can make the same bytes. A row with a NaN or infinity gets the scale
    NaN.
    """
    x = x.float() if x_factor is None else x.float() * x_factor.float()
    finite = torch.where(torch.isfinite(x), x, torch.zeros_like(x))
    nothing = (x * 0).sum(-1, keepdim=True)  # 0, or NaN where x holds a NaN or an infinity
    if x_scale is None:
        low = finite.amin(-1, keepdim=True).clamp_max(0)
        span = finite.amax(-1, keepdim=True).clamp_min(0) - low
        empty = span < LEAST_RANGE
        most = torch.full_like(span, 255)
        inverse = torch.where(empty, 0, most / torch.where(empty, 1, span))
        scale = torch.where(empty, 1, span / most)
        zero = (-low * inverse).round()
    else:
        scale = x_scale.float().expand(nothing.shape)
        inverse = torch.ones_like(scale) / scale
        zero = torch.zeros_like(scale) if x_zero is None else x_zero.float().expand(scale.shape)
    return ((finite * inverse).round() + zero).clamp(0, 255), scale + nothing, zero


def levels(
    values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a tensor in eight bits [..., K] stands for, as (whole multiples, step [..., 1]) in `dtype`.

    scale, zero: one number each, or one for each row [...].
    """
    step = scale.to(dtype).expand(values.shape[:-1])[..., None]
    if values.dtype != torch.int8:
        return values.to(dtype), step
    assert zero is not None
    return values.to(dtype) + 128 - zero.to(dtype).expand(values.shape[:-1])[..., None], step


def result_operands(y: Operand, kind: str) -> Sequence[Operand]:
    """The result in eight bits and the scales and zeros of its rows, beside a result y [..., E]."""
    rows = Operand("float32", None if y.shape is None else y.shape[:-1])
    return Operand("int8" if kind == NONE else kind, y.shape), rows, rows
