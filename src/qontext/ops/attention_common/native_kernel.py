"""Attention with qontext's own CPU kernels (`qontext.native`): what they take, and their arguments."""

from typing import Any

import torch

from ... import native
from ...graph.dims import AnyDim
from ..call import Call, Operand
from .mask_operand import is_boolean
from .masks import added, attended, empty_rows
from .problem import Problem

Tensor = torch.Tensor
LARGEST_HEAD = 256


def refusal(
    call: Call,
    head_sizes: tuple[AnyDim, AnyDim],
    mask: Operand | None,
    bias: Operand | None,
    packed: bool,
    self_attention: bool,
) -> str | None:
    """Why the native kernel cannot run a call; None when it can.

    Args:
        head_sizes: D and Dv.
        self_attention: queries and keys are the same tokens, so that causal attention leaves no row empty.
    """
    if not native.available():
        return f"the CPU kernel library is {native.status().reason}"
    for size in head_sizes:
        if not isinstance(size, int) or not 1 <= size <= LARGEST_HEAD:
            return f"the head size is {'unknown' if size is None else size}; the kernel takes 1 to {LARGEST_HEAD}"
    attributes = call.attributes
    if attributes["kind"] == "prefix" and attributes["window_right"] >= 0:
        return f"kind is 'prefix' and window_right {attributes['window_right']}; the kernel shows the whole prefix"
    boolean = is_boolean(mask, attributes)
    if packed and mask is not None and not boolean and bias is not None:
        return "a packed call has an additive mask and a bias; the kernel takes one of them"
    if packed and attributes["empty_row"] == "as_unmasked" and (boolean or not self_attention):
        return "empty_row is 'as_unmasked' in a packed call whose masks may leave rows empty"
    return None


def int32(counts: Tensor | None) -> Tensor | None:
    """Counts or boundaries as the kernel reads them."""
    return None if counts is None else counts.to(torch.int32).contiguous()


def four_axes(mask: Tensor | None) -> Tensor | None:
    """`[B, Skv]` becomes `[B, 1, 1, Skv]`."""
    return mask[:, None, None, :] if mask is not None and mask.dim() == 2 else mask


def arguments(problem: Problem) -> dict[str, Any]:
    """The mask arguments of `native.attention` for any problem that `refusal` lets through.

    The kernel has no row that ignores its masks: for empty_row "as_unmasked" all masks of a padded problem become one
    boolean mask whose empty rows are opened.
    """
    rule = problem.rule
    packed = problem.cu_q is not None
    boolean = problem.mask is not None and problem.mask.dtype == torch.bool
    additive = None if boolean else four_axes(problem.mask)
    if packed:
        bias = problem.bias if additive is None else additive
    elif problem.bias is not None and additive is not None:
        bias = added(problem, torch.float32)
    elif problem.bias is not None:
        bias = problem.bias[..., : problem.query.shape[1], : problem.key.shape[1]]
    else:
        bias = additive
    result: dict[str, Any] = {"scale": rule.scale, "softcap": rule.softcap, "bias": bias}
    if rule.empty_row == "as_unmasked" and not packed:
        allowed = attended(problem)
        empty = empty_rows(allowed, added(problem, torch.float32))
        if allowed is not None and empty is not None:
            allowed = allowed | empty
        return {**result, "mask": allowed, "offset": 0}
    return {
        **result,
        "mask": four_axes(problem.mask) if boolean else None,
        "kv_counts": int32(problem.lengths),
        "prefix": int32(problem.prefix_lengths),
        "causal": rule.kind != "full",
        "offset": problem.offset if isinstance(problem.offset, int) and not packed else None,
        "window": (rule.window_left, rule.window_right),
        "empty_row": "uniform" if rule.empty_row == "uniform" else "zeros",
    }


def run(problem: Problem, out: Tensor) -> None:
    """Writes the context into `out` `[B, S, N, Dv]` (packed: `[T, N, Dv]`), a view with any strides."""
    query, key, value = (
        x if x.stride(-1) == 1 else x.contiguous() for x in (problem.query, problem.key, problem.value)
    )
    native.attention(
        query,
        key,
        value,
        out=out,
        cu_seqlens_q=int32(problem.cu_q),
        cu_seqlens_k=int32(problem.cu_kv),
        **arguments(problem),
    )
