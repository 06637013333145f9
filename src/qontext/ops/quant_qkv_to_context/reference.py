"""QuantQKVToContext in plain torch."""

from typing import Any

import torch

from ...dtypes import by_name
from ..attention_common.layouts import CONTEXT_OF, from_heads
from ..attention_common.masks import added, attended, empty_rows
from ..attention_common.problem import Problem
from ..eight_bits import KINDS, held
from ..eight_bits import MOST as MOST_IN_FLOATS
from ..qkv_to_context.problem import problem_of

Tensor = torch.Tensor
MOST = 127  # of a signed byte: -128 is left out, so that a number and its negative are equally exact
LEAST = 1e-30  # magnitudes below count as zeros
TOP = 8.0  # in float8_e4m3 the weights of a row end between 2^7 and 2^8: powers of two change no digit of others
LOG2E = 1.4426950408889634
STORED = tuple(by_name(kind).torch for kind in KINDS)


def on_levels(
    x: Tensor, scale: Tensor | None, axes: tuple[int, ...], counts: Tensor | None = None, kind: str = "int8"
) -> tuple[Tensor, Tensor]:
    """(held, scale) with x about held * scale: what `kind` holds, as float32 of the shape of x; whole numbers from
    -127 to 127 in int8.

    Without a scale the largest magnitude along `axes` (where `counts` is true, if it is given) becomes the largest
    number of `kind`. All of this is float32 arithmetic, whatever the dtype of x, so that every kernel can make the same
    bits. A NaN or an infinity that counts makes the scale a NaN, a given one too.
    """
    top = MOST if kind == "int8" else MOST_IN_FLOATS
    x = x.float()
    finite = torch.where(torch.isfinite(x), x, torch.zeros_like(x))
    nothing, seen = x * 0, finite.abs()  # 0, or NaN where x holds a NaN or an infinity
    if counts is not None:
        nothing, seen = (torch.where(counts, t, torch.zeros_like(t)) for t in (nothing, seen))
    nothing = nothing.sum(axes, keepdim=True)
    if scale is None:
        largest = seen.amax(axes, keepdim=True) if x.numel() else nothing
        empty = largest < LEAST
        most = torch.full_like(largest, top)
        inverse = torch.where(empty, 0, most / torch.where(empty, 1, largest))
        found = torch.where(empty, 1, largest / most)
    else:
        found = scale.float().expand(nothing.shape)
        inverse = torch.ones_like(found) / found
    units = finite * inverse
    units = (units.round() if kind == "int8" else units).clamp(-top, top)
    return (units if kind == "int8" else units.to(by_name(kind).torch).float()), found + nothing


def held_probabilities(logits: Tensor, empty: Tensor | None, dq_probs: float, kind: str) -> tuple[Tensor, Tensor]:
    """(held, what 1 stands for) of the probabilities over the last axis: see `probability_bytes`; in float8_e4m3
    weights up to 2^8, whose unrounded sum is 1."""
    if kind == "int8":
        return probability_bytes(logits, empty, dq_probs)
    if logits.shape[-1] == 0:
        return logits, torch.zeros_like(logits.sum(-1, keepdim=True))
    if empty is not None:
        logits = torch.where(empty, torch.zeros_like(logits), logits)
    twos = logits * LOG2E
    weights = torch.exp2(twos - twos.amax(-1, keepdim=True).ceil() + TOP)
    units = weights.float().to(by_name(kind).torch).to(weights.dtype)
    step = 1 / weights.sum(-1, keepdim=True)
    return (units if empty is None else torch.where(empty, torch.zeros_like(units), units)), step


def probability_bytes(logits: Tensor, empty: Tensor | None, dq_probs: float) -> tuple[Tensor, Tensor]:
    """(bytes, what a byte stands for) of the probabilities over the last axis: whole numbers from 0 to 127.

    Args:
        logits: with masks, -inf where masked.
        empty: rows without a key, which get bytes of zeros.
        dq_probs: the step of normalised probabilities; 0: a row's largest becomes 127, and its bytes add up to 1.
    """
    if logits.shape[-1] == 0:
        return logits, torch.zeros_like(logits.sum(-1, keepdim=True))
    if empty is not None:
        logits = torch.where(empty, torch.zeros_like(logits), logits)
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    if dq_probs:
        held = (weights / weights.sum(-1, keepdim=True) / dq_probs).round().clamp(0, MOST)
        step = torch.full_like(held[..., :1], dq_probs)
    else:
        held = (weights * MOST).round()
        step = 1 / held.sum(-1, keepdim=True)
    return (held if empty is None else torch.where(empty, torch.zeros_like(held), held)), step


def attend(problem: Problem, wide: torch.dtype, qkv_scale: Tensor | None, dq_probs: float, kind: str) -> Tensor:
    """The context `[B, S, N, D]` of one padded problem, whose operands are floats or (with a scale) in eight bits."""
    rule, stored = problem.rule, problem.query.dtype in STORED
    scales = [None] * 3 if qkv_scale is None else list(qkv_scale.expand(3))
    found = []
    operands = (problem.query, problem.key, problem.value)
    for x, scale, axes in zip(operands, scales, ((3,), (3,), (1, 3)), strict=True):
        if stored:
            assert scale is not None
            units, step = x, scale.float().expand([1 if a in axes else n for a, n in enumerate(x.shape)])
        else:
            units, step = on_levels(x, scale, axes, _counting(problem) if 1 in axes else None, kind)
        found.append([t.to(wide).transpose(1, 2) for t in (units, step)])
    (query, q_step), (key, k_step), (held_value, v_step) = found
    key, k_step, held_value, v_step = (
        t.repeat_interleave(problem.groups, dim=1) for t in (key, k_step, held_value, v_step)
    )
    logits = query @ key.transpose(-1, -2) * (q_step * k_step.transpose(-1, -2) * rule.scale)
    logits = rule.softcap * torch.tanh(logits / rule.softcap) if rule.softcap else logits
    allowed, extra = attended(problem), added(problem, wide)
    unmasked = logits if extra is None else logits + extra
    masked = unmasked if allowed is None else unmasked.masked_fill(~allowed, -torch.inf)
    empty = empty_rows(allowed, extra)
    if empty is not None and rule.empty_row == "as_unmasked":
        masked, empty = torch.where(empty, unmasked, masked), None
    elif empty is not None and rule.empty_row == "uniform":
        masked, empty = torch.where(empty, torch.zeros_like(masked), masked), None
    probs, step = held_probabilities(masked, empty, dq_probs, kind)
    return (probs @ held_value * (step * v_step)).transpose(1, 2)


def _counting(problem: Problem) -> Tensor | None:
    """True for rows of V `[B, Skv, 1, 1]` that its scale is made of: the valid ones, or all where there is none."""
    if problem.lengths is None:
        return None
    rows = torch.arange(problem.value.shape[1], device=problem.value.device)
    counts = torch.where(problem.lengths > 0, problem.lengths, len(rows))
    return (rows < counts[:, None])[:, :, None, None]


def reference(
    qkv: Tensor,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    max_seqlen: Tensor | None = None,
    prefix_lengths: Tensor | None = None,
    qkv_scale: Tensor | None = None,
    context_scale: Tensor | None = None,
    **attributes: Any,
) -> Tensor:
    """Attention over queries, keys, values and probabilities in eight bits, with exact sums of their products."""
    problem = problem_of((qkv, lengths, mask, bias, cu_seqlens, max_seqlen, prefix_lengths), attributes)
    wide = torch.float64 if qkv.dtype in (torch.float64, *STORED) else torch.float32
    kind, step = attributes["eight_bits"], attributes["dq_probs"]
    if problem.cu_q is None:
        context = attend(problem, wide, qkv_scale, step, kind)
    else:
        parts = [attend(one, wide, qkv_scale, step, kind)[0] for one in problem.sequences()]
        context = torch.cat(parts) if parts else problem.query.new_zeros(problem.query.shape, dtype=wide)
    if context_scale is not None and kind == "int8":
        context = (context / context_scale).round().clamp(-128, 127)
    elif context_scale is not None:
        context = held(context, kind, context_scale)[0]
    return from_heads(context, CONTEXT_OF[attributes["layout"]]).contiguous()
