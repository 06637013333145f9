"""One attention, whatever operator and layout it came from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from ...errors import InputError, ShapeError
from ...native.checks import counts_fit

Tensor = torch.Tensor


@dataclass(frozen=True)
class Rule:
    """The compile-time part: the attributes both operators share (see their declarations).

    scale is never 0 here. A window side of -1 is unlimited.
    """

    scale: float
    kind: str = "full"
    empty_row: str = "zeros"
    softcap: float = 0.0
    window_left: int = -1
    window_right: int = -1


def rule_of(attributes: Mapping[str, Any], head_size: int) -> Rule:
    """The rule that attributes state, with the default scale 1 / sqrt(D) filled in."""
    return Rule(
        attributes["scale"] or head_size**-0.5,
        attributes["kind"],
        attributes["empty_row"],
        attributes["softcap"],
        attributes["window_left"],
        attributes["window_right"],
    )


def kv_heads(attributes: Mapping[str, Any]) -> int:
    """Key and value heads of the attributes: `num_kv_heads`, where 0 says as many as query heads."""
    return int(attributes["num_kv_heads"] or attributes["num_heads"])


@dataclass(frozen=True)
class Problem:
    """Operands in one form, padded or packed.

    query, key, value: padded `[B, S, N, D]`, `[B, Skv, Nkv, D]`, `[B, Skv, Nkv, Dv]`;
                       packed `[T, N, D]`, `[Tkv, Nkv, D]`, `[Tkv, Nkv, Dv]`
    mask:              bool (True = attend) or additive, `[B, Skv]` or `[B|1, N|1, S|1, Skv]`
    bias:              additive `[B|1, N|1, S, Skv]`
    lengths:           valid keys `[B]`; keys from there on are masked
    offset:            place of the first query among the keys, one number or `[B]`
    prefix_lengths:    `[B]`, for kind "prefix"
    cu_q, cu_kv:       int32 `[B+1]` when packed: sequence b owns rows cu[b] to cu[b+1]

    A packed problem has no `lengths`; its mask and bias are indexed by position within the sequence and may be larger
    than any sequence needs. A padded problem takes a larger bias too (a table of relative positions), but no larger
    mask.
    """

    rule: Rule
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None = None
    bias: Tensor | None = None
    lengths: Tensor | None = None
    offset: Tensor | int = 0
    prefix_lengths: Tensor | None = None
    cu_q: Tensor | None = None
    cu_kv: Tensor | None = None

    def __post_init__(self) -> None:
        """Raises InputError for counts that no kernel can honour; those of a GPU would have to be waited for."""
        if self.lengths is not None and self.lengths.device.type == "cpu":
            counts_fit("the number of valid keys", self.lengths, self.key.shape[1])
        if self.prefix_lengths is not None and self.prefix_lengths.device.type == "cpu":
            counts_fit("the prefix", self.prefix_lengths, None)

    @property
    def groups(self) -> int:
        """Query heads that share one key and value head."""
        return self.query.shape[-2] // self.key.shape[-2]

    def sequences(self) -> Iterator["Problem"]:
        """The padded problems of batch 1 that a packed problem consists of, in order.

        In each, the offset is the key length minus the query length: the last query sees the last key.
        Raises InputError for boundaries that fall or do not end at the last token.
        """
        assert self.cu_q is not None
        assert self.cu_kv is not None
        q_bounds = boundaries(self.cu_q, self.query.shape[0], "cu_seqlens of the queries")
        kv_bounds = boundaries(self.cu_kv, self.key.shape[0], "cu_seqlens of the keys")
        for b, (q0, q1, k0, k1) in enumerate(zip(q_bounds, q_bounds[1:], kv_bounds, kv_bounds[1:], strict=False)):
            yield replace(
                self,
                query=self.query[None, q0:q1],
                key=self.key[None, k0:k1],
                value=self.value[None, k0:k1],
                mask=corner(self.mask, "mask", b, q1 - q0, k1 - k0),
                bias=corner(self.bias, "bias", b, q1 - q0, k1 - k0),
                offset=(k1 - k0) - (q1 - q0),
                prefix_lengths=None if self.prefix_lengths is None else self.prefix_lengths[b : b + 1],
                cu_q=None,
                cu_kv=None,
            )


def boundaries(cu_seqlens: Tensor, tokens: int, name: str) -> list[int]:
    """The boundaries as numbers. Raises InputError when they fall or are not 0 first and `tokens` last."""
    bounds: list[int] = cu_seqlens.tolist()
    if bounds[:1] != [0] or bounds[-1] != tokens or any(b < a for a, b in pairwise(bounds)):
        shown = str(bounds) if len(bounds) <= 12 else f"{str(bounds[:6])[:-1]}, ..., {bounds[-1]}]"
        raise InputError(
            f"{name} is {shown}; it has to start at 0, never fall and end at the number of tokens, {tokens}"
        )
    return bounds


def corner(x: Tensor | None, name: str, sequence: int, rows: int, columns: int) -> Tensor | None:
    """The part of a mask or bias that one packed sequence uses: batch 1, `rows` (or 1), `columns`."""
    if x is None:
        return None
    if x.shape[-1] < columns or (x.dim() == 4 and 1 < x.shape[-2] < rows):
        raise ShapeError(
            f"{name} has shape {list(x.shape)}, but sequence {sequence} has {rows} queries and {columns} keys; "
            f"{name} needs at least that many rows and columns"
        )
    own = x[sequence : sequence + 1] if x.shape[0] > 1 else x
    return own[..., :columns] if x.dim() == 2 or x.shape[-2] == 1 else own[..., :rows, :columns]


def padded(x: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """Packed `[T, N, D]` as `[B, longest, N, D]` with zeros behind; what is padded already comes back as it is."""
    if cu_seqlens is None:
        return x
    bounds = boundaries(cu_seqlens, x.shape[0], "cu_seqlens")
    longest = max((end - start for start, end in pairwise(bounds)), default=0)
    result = x.new_zeros(len(bounds) - 1, longest, *x.shape[1:])
    for b, (start, end) in enumerate(pairwise(bounds)):
        result[b, : end - start] = x[start:end]
    return result
