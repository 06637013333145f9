"""The small functions around attention: ALiBi slopes and biases, masks, the last tokens of a batch."""

import math

import torch

from ..dtypes import BY_NAME
from ..dtypes import by_name as dtype_by_name
from ..errors import ArgumentError, DTypeError, InputError, ShapeError, all_problems

Tensor = torch.Tensor


def torch_dtype(name: str, dtype: torch.dtype | str) -> torch.dtype:
    """A torch dtype from itself or its name ("float16", "fp16"). Raises DTypeError naming the argument."""
    if isinstance(dtype, torch.dtype):
        return dtype
    try:
        return dtype_by_name(dtype).torch
    except (KeyError, TypeError):
        raise DTypeError(f"{name} is {dtype!r}; allowed are torch dtypes and {', '.join(BY_NAME)}") from None


def check_parallel(what: str, tp_size: int, tp_rank: int, heads: int) -> None:
    """Raises ArgumentError unless `heads` are divided evenly and the rank is one of the group."""
    problems = []
    if tp_size < 1:
        problems.append(f"tp_size is {tp_size}, it has to be at least 1")
    elif heads % tp_size:
        problems.append(f"tp_size is {tp_size}, which does not divide num_heads {heads}")
    if not 0 <= tp_rank < max(tp_size, 1):
        problems.append(f"tp_rank is {tp_rank}, allowed are 0 to {max(tp_size, 1) - 1}")
    if problems:
        raise ArgumentError(all_problems(what, problems))


def generate_alibi_slopes(
    num_heads: int,
    dtype: torch.dtype | str = torch.float32,
    tp_size: int = 1,
    tp_rank: int = 0,
    alibi_scale: float = 1.0,
) -> Tensor:
    """The slopes of ALiBi, [1, heads of this rank, 1, 1] (https://arxiv.org/abs/2108.12409).

    Head h of a power of two n has slope 2^(-8 (h + 1) / n). Where the heads are no power of two, those beyond the last
    one take every second slope of twice as many heads, as BLOOM has it.

    Args:
        num_heads: of all ranks together.
        dtype: of the result.
        tp_size, tp_rank: ranks that share the heads, and which one this is.
        alibi_scale: factor on the slopes.
    Raises:
        ArgumentError: heads that are not divided evenly, a rank outside the group.
    """
    if num_heads < 1:
        raise ArgumentError(f"generate_alibi_slopes: num_heads is {num_heads}, it has to be at least 1")
    check_parallel("generate_alibi_slopes", tp_size, tp_rank, num_heads)
    whole = 2 ** math.floor(math.log2(num_heads))
    slopes = [2.0 ** (-8.0 * (h + 1) / whole) for h in range(whole)]
    slopes += [2.0 ** (-4.0 * (2 * (h - whole) + 1) / whole) for h in range(whole, num_heads)]
    each = num_heads // tp_size
    mine = torch.tensor(slopes[tp_rank * each : (tp_rank + 1) * each], dtype=torch.float64) * alibi_scale
    return mine.to(torch_dtype("generate_alibi_slopes: dtype", dtype)).reshape(1, each, 1, 1)


def generate_alibi_biases(slopes: Tensor, key_length: int | Tensor) -> Tensor:
    """The biases that ALiBi adds to the logits: slope * key position, [1, N, 1, key_length].

    They do not depend on the query: softmax sees differences between keys only.
    """
    length = int(key_length)
    if slopes.dim() != 4:
        raise ShapeError(f"generate_alibi_biases: slopes has shape {list(slopes.shape)}, it needs [1, N, 1, 1]")
    if length < 0:
        raise ArgumentError(f"generate_alibi_biases: key_length is {length}, it has to be 0 or more")
    return slopes * torch.arange(length, dtype=torch.float32, device=slopes.device)


def expand_mask(mask: Tensor, tgt_len: int | Tensor | None = None) -> Tensor:
    """A mask [B, src] of ones (seen) and zeros as biases [B, 1, tgt, src]: 0 where seen, -inf elsewhere.

    Args:
        tgt_len: queries; as many as keys when None.
    """
    if mask.dim() != 2:
        raise ShapeError(f"expand_mask: mask has shape {list(mask.shape)}, it needs [B, src_seq_len]")
    batch, source = mask.shape
    target = source if tgt_len is None else int(tgt_len)
    wide = mask[:, None, None, :].expand(batch, 1, target, source)
    return torch.zeros(wide.shape, dtype=torch.float32, device=mask.device).masked_fill(wide == 0, -torch.inf)


def gather_last_token_logits(
    hidden_states: Tensor, last_token_ids: Tensor | None, remove_input_padding: bool
) -> Tensor:
    """The rows of the last tokens, [B, E].

    Args:
        hidden_states: packed [1, T, E] or [T, E]; padded [B, S, E].
        last_token_ids: int [B]; packed: the sum of lengths up to and with each sequence, padded: each length. None
            gives hidden_states back.
        remove_input_padding: whether the input is packed.
    Raises:
        ShapeError, DTypeError, InputError: naming the argument.
    """
    if last_token_ids is None:
        return hidden_states
    what = "gather_last_token_logits"
    if last_token_ids.dtype not in (torch.int32, torch.int64):
        raise DTypeError(f"{what}: last_token_ids is {last_token_ids.dtype}, expected int32 or int64")
    if last_token_ids.dim() != 1:
        raise ShapeError(f"{what}: last_token_ids has shape {list(last_token_ids.shape)}, it needs [B]")
    if remove_input_padding:
        if hidden_states.dim() == 3 and hidden_states.shape[0] == 1:
            hidden_states = hidden_states[0]
        if hidden_states.dim() != 2:
            raise ShapeError(f"{what}: packed hidden_states has shape {list(hidden_states.shape)}, it needs [1, T, E]")
        _check_last(what, last_token_ids, len(hidden_states), "tokens")
        return hidden_states[last_token_ids.long() - 1]
    if hidden_states.dim() != 3 or len(hidden_states) != len(last_token_ids):
        raise ShapeError(
            f"{what}: hidden_states has shape {list(hidden_states.shape)}, it needs [{len(last_token_ids)}, S, E]"
        )
    _check_last(what, last_token_ids, hidden_states.shape[1], "tokens a sequence")
    return hidden_states[torch.arange(len(hidden_states), device=hidden_states.device), last_token_ids.long() - 1]


def _check_last(what: str, ids: Tensor, most: int, unit: str) -> None:
    if ids.numel() and (int(ids.min()) < 1 or int(ids.max()) > most):
        raise InputError(
            f"{what}: last_token_ids holds {int(ids.min())} to {int(ids.max())}, allowed are 1 to {most}, the {unit}"
        )
