"""Attention over bytes on the CPU: queries, keys, values and probabilities in eight bits, sums of products exact."""

import struct
from collections.abc import Sequence
from typing import Any

import torch

from qontext.errors import ArgumentError, DTypeError
from qontext.native.attention import operands_of, run
from qontext.native.checks import DTYPES
from qontext.native.library import functions

_REST = struct.Struct("=q5d")
_CODES = {**DTYPES, torch.int8: 3}
Scales = Sequence[float]  # of q, k and v


def quant_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    out: torch.Tensor,
    scales: Scales | None = None,
    context_scale: float | None = None,
    dq_probs: float = 0.0,
    scale: float | None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
    kv_counts: torch.Tensor | None = None,
    causal: bool = False,
    offset: int | None = None,
    window: tuple[int, int] = (-1, -1),
    prefix: torch.Tensor | None = None,
    softcap: float = 0.0,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    empty_row: Any = "zeros",
) -> torch.Tensor:
    """As `native.attention`, with products of bytes (see the operator QuantQKVToContext).

    Args:
        q, k, v: float32, bfloat16, float16, or int8 with their scales.
        out: a float dtype, or int8 with `context_scale`.
        scales: of q, k and v, all over 0; None finds one a row of q and k, and one a sequence and head of v.
        dq_probs: what a byte of a probability stands for; 0: a row's largest is 127 and its bytes add up to 1.
    Raises:
        As `native.attention`; ArgumentError for scales that are missing or not over 0.
    """
    stored = q.dtype == torch.int8
    if stored and scales is None:
        raise ArgumentError("q is int8, but there are no scales of q, k and v")
    if (out.dtype == torch.int8) != (context_scale is not None):
        raise ArgumentError(f"out is {out.dtype} and context_scale {context_scale}; int8 and a scale go together")
    given = (*(scales or (1.0,)), 1.0 if context_scale is None else context_scale)
    if not all(0 < s < float("inf") for s in given) or not 0 <= dq_probs <= 1:
        raise ArgumentError(f"scales {given} and dq_probs {dq_probs}; wanted scales over 0 and a step from 0 to 1")
    if q.dtype not in _CODES or out.dtype not in _CODES:
        raise DTypeError(f"q is {q.dtype} and out {out.dtype}; the kernel takes float32, bfloat16, float16 and int8")
    rest = _REST.pack(_CODES[out.dtype], *(scales or (0.0, 0.0, 0.0)), context_scale or 0.0, dq_probs)
    run(
        functions().qx_quant_attention, operands_of(q, k, v, out, cu_seqlens_q, cu_seqlens_k), _CODES[q.dtype], scale,
        cu_seqlens_q, cu_seqlens_k, kv_counts, causal, offset, window, prefix, softcap, bias, mask, empty_row, rest,
    )  # fmt: skip
    return out
