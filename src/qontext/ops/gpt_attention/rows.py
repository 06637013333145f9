"""The sequences of one call: which tokens are new, how many came before, where they are cached."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch

from ...errors import InputError
from ..call import Tensors
from .cache import Cache

Tensor = torch.Tensor

INPUTS = (
    "qkv",
    "past",
    "past_lengths",
    "query_lengths",
    "slots",
    "block_table",
    "cache_indirection",
    "kv_orig_quant_scale",
    "kv_quant_orig_scale",
    "qkv_bias",
    "alibi_slopes",
    "relative_attention_bias",
    "prefix_lengths",
    "cross_qkv",
    "encoder_lengths",
)

_LAST = threading.local()  # rows: those of this thread's last call

COUNTS = ("past_lengths", "query_lengths")  # what a step on a GPU reads on the host, if it reads anything there


@dataclass(frozen=True)
class Rows:
    """Sequence r has `new[r]` tokens from row `first[r]` of all tokens, after `past[r]` tokens in slot `slots[r]`."""

    first: list[int]
    new: list[int]
    past: list[int]
    slots: list[int]
    prefix: list[int] | None
    encoder: list[int] | None
    tokens: int
    memo: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)  # see `rows_of`

    def __len__(self) -> int:
        return len(self.new)

    @property
    def written(self) -> tuple[list[int], list[int]]:
        """Tokens of each sequence that the cache holds before the step, and that it holds besides after it.

        Of cross attention it holds the encoder outputs, wherever the queries are.
        """
        return (self.past, self.new) if self.encoder is None else ([0] * len(self), self.encoder)

    def once(self, name: object, make: Callable[[], Any]) -> Any:
        """What `make` gives, worked out by the first layer that asks for it."""
        if name not in self.memo:
            self.memo[name] = make()
        return self.memo[name]

    def starts(self) -> list[int]:
        """Where the new tokens of each sequence begin among all new tokens."""
        found: list[int] = self.once("starts", lambda: [0, *accumulate(self.new)][:-1])
        return found

    def token_index(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of every new token: its flat row, its position, its slot; int64 [sum of new]. Not to be written to."""
        found: tuple[Tensor, Tensor, Tensor] = self.once("tokens", self._token_index)
        return found

    def _token_index(self) -> tuple[Tensor, Tensor, Tensor]:
        new = torch.tensor(self.new, dtype=torch.int64)
        inside = torch.arange(int(new.sum())) - (new.cumsum(0) - new).repeat_interleave(new)
        index, position, slot = (
            torch.tensor(x, dtype=torch.int64).repeat_interleave(new) for x in (self.first, self.past, self.slots)
        )
        return index + inside, position + inside, slot


def is_packed(qkv: Tensor, query_lengths: Tensor | None) -> bool:
    """[T, W], or [1, T, W] with lengths: with one sequence padded and packed are the same."""
    return qkv.dim() == 2 or (query_lengths is not None and qkv.shape[0] == 1)


def rows_each(given: Mapping[str, Tensor | None], attributes: Mapping[str, Any]) -> int | None:
    """Rows of qkv that every sequence has (behind its new tokens padding); None where they follow without gaps."""
    qkv = given["qkv"]
    assert qkv is not None
    if attributes["tokens_each"]:
        return int(attributes["tokens_each"])
    return None if is_packed(qkv, given["query_lengths"]) else int(qkv.shape[1])


def rows_of(given: Mapping[str, Tensor | None], attributes: Mapping[str, Any]) -> Rows:
    """The sequences of a call.

    Calls that follow each other with the same numbers, as the layers of a model bring them, get the same object, so
    that a layer finds what the one before it has worked out.

    Raises InputError for lengths that do not add up to the tokens, are negative or larger than their room.
    """
    qkv, query_lengths = given["qkv"], given["query_lengths"]
    assert qkv is not None
    tokens = qkv.shape[:-1].numel()
    each = rows_each(given, attributes)
    if each is None:
        assert query_lengths is not None
        new = _numbers("query_lengths", query_lengths)
        if sum(new) != tokens:
            raise InputError(
                f"query_lengths is {_shown(new)}, {sum(new)} tokens in all, but qkv holds {tokens} packed tokens"
            )
        ends = torch.tensor(new, dtype=torch.int64).cumsum(0).tolist()
        first = [end - count for end, count in zip(ends, new, strict=True)]
    else:
        count = tokens // each if qkv.dim() == 2 else qkv.shape[0]
        new = [each] * count if query_lengths is None else _numbers("query_lengths", query_lengths)
        if any(n > each for n in new):
            raise InputError(f"query_lengths is {_shown(new)}, but qkv is padded to {each} tokens a sequence")
        if len(new) != count or count * each != tokens:
            found = f"{count} rows" if qkv.dim() == 3 else f"{tokens} tokens, {each} for each"
            raise InputError(f"query_lengths has {len(new)} numbers, but qkv is padded and has {found}")
        first = [r * each for r in range(count)]
    zero = [0] * len(new)
    numbers = {
        name: None if (x := given[name]) is None else _numbers(name, x)
        for name in ("past_lengths", "slots", "prefix_lengths", "encoder_lengths")
    }
    for name, values in numbers.items():
        if values is not None and len(values) != len(new):
            raise InputError(f"{name} has {len(values)} numbers for {len(new)} sequences")
    past, slots = numbers["past_lengths"] or zero, numbers["slots"] or list(range(len(new)))
    rows = Rows(first, new, past, slots, numbers["prefix_lengths"], numbers["encoder_lengths"], tokens)
    _check_encoder(rows, given["cross_qkv"])
    _check_positions(rows, given["relative_attention_bias"])
    if getattr(_LAST, "rows", None) != rows:
        _LAST.rows = rows
    last: Rows = _LAST.rows
    return last


def _check_encoder(rows: Rows, source: Tensor | None) -> None:
    """Raises InputError when encoder outputs are shorter than their lengths say."""
    if source is None or rows.encoder is None:
        return
    tokens = source.shape[:-1].numel()
    if encoder_is_packed(source, rows):
        if sum(rows.encoder) != tokens:
            raise InputError(
                f"encoder_lengths is {_shown(rows.encoder)}, {sum(rows.encoder)} tokens in all, but cross_qkv holds "
                f"{tokens} packed tokens"
            )
    elif source.shape[0] != len(rows) or max(rows.encoder, default=0) > source.shape[1]:
        raise InputError(
            f"encoder_lengths is {_shown(rows.encoder)}, but cross_qkv has {source.shape[0]} rows of "
            f"{source.shape[1]} tokens"
        )


def _check_positions(rows: Rows, table: Tensor | None) -> None:
    """Raises InputError when a table of biases by position is too short for a sequence."""
    if table is None or table.dim() != 3:
        return
    queries = max((p + n for p, n in zip(rows.past, rows.new, strict=True)), default=0)
    keys = queries if rows.encoder is None else max(rows.encoder, default=0)
    if queries > table.shape[1] or keys > table.shape[2]:
        raise InputError(
            f"relative_attention_bias is for {table.shape[1]} queries and {table.shape[2]} keys, the longest sequence "
            f"has {queries} queries and {keys} keys"
        )


def encoder_is_packed(source: Tensor, rows: Rows) -> bool:
    """Whether encoder outputs stand one after the other: [T, W], or [1, T, W] for several sequences."""
    return source.dim() == 2 or (source.shape[0] == 1 and len(rows) > 1)


def cache_of(given: Mapping[str, Tensor | None], attributes: Mapping[str, Any]) -> Cache | None:
    """The cache of a call, None when it has none."""
    past = given["past"]
    if past is None:
        return None
    window = attributes["window"]
    return Cache(
        past,
        given["block_table"],
        given["cache_indirection"],
        given["kv_orig_quant_scale"],
        given["kv_quant_orig_scale"],
        attributes["sinks"] if window else 0,
        cyclic=window > 0,
    )


def named(inputs: Tensors) -> dict[str, Tensor | None]:
    """The inputs of a call by name."""
    return dict(zip(INPUTS, [*inputs, *[None] * (len(INPUTS) - len(inputs))], strict=True))


def _numbers(name: str, values: Tensor) -> list[int]:
    found: list[int] = values.tolist()
    if any(n < 0 for n in found):
        raise InputError(f"{name} is {_shown(found)}; lengths are 0 or more")
    return found


def _shown(numbers: list[int]) -> str:
    return str(numbers) if len(numbers) <= 12 else f"{str(numbers[:8])[:-1]}, ...]"
